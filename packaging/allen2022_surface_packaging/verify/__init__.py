"""Checks of a finished release: against itself, against the raw files, against another release."""
