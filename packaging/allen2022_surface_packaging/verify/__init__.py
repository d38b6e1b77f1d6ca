"""Checks of a finished release: against itself, against the raw files, and against another release."""
