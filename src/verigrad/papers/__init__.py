"""The papers: every number of their tables, and how each is redone."""
