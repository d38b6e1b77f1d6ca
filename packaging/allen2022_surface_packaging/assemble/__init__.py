"""From an inspected NSD tree to a release: responses, stimuli, assemblies."""
