"""Certificates: lower bounds on the distance to the nearest error, each with how honest it is."""
