"""Draws the ledger: a terminal table, one self-contained HTML page, JSON and SARIF. Knows no torch."""
