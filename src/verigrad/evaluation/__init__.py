"""Attacks become units, units become rows of the ledger, and every row is judged afresh."""
