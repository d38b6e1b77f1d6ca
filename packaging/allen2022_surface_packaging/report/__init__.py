"""A release as one HTML page."""
