"""The report: a release as one HTML page."""
