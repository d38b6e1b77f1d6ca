"""A release as brainio objects on S3, and the plugin as a pull request."""
