"""Attacks, one a file. Each is a frozen dataclass called with a classifier, a batch, a threat and a generator."""
