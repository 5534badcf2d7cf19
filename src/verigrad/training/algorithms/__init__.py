"""Training steps that are more than one gradient of a loss, one a file."""
