"""The networks of the papers and their baselines, one architecture a file."""
