"""Words that every room shares: threats, scores, seeds, errors, and what a classifier is."""
