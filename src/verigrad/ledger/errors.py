"""What can be wrong with a ledger. Each message is one line: the value, what was expected, and the fix."""


class LedgerError(Exception):
    """A ledger cannot be opened, read or written as asked."""


class LedgerMismatch(LedgerError):
    """The ledger at this path belongs to a run with another identity."""


class EditedLedger(LedgerError):
    """What the ledger holds is not what its receipts say was recorded."""
