"""Labelled images, from where they lie to tensors in [0, 1]."""
