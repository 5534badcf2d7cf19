"""The errors that a user can mend."""


class VerigradError(Exception):
    """Base of every error that verigrad raises on purpose; the command line prints it as one line."""


class BadInput(VerigradError):
    """Something the user gave cannot be used.

    The message is one line: the value, what was expected, and the fix. The command line exits with code 2.
    """
