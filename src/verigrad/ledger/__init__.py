"""The run's SQLite file: every unit, every sample, every witness; the one truth, from which all reports are drawn."""
