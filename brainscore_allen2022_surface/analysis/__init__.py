"""What scientists do after loading: ceilings, noise ceilings, repetitions, copies, fsaverage maps, and local benchmarks.

A pull request to brain-score/vision leaves this folder out.
"""
