"""What somebody else's code says when it fails, in one line."""

from __future__ import annotations


def told(fault: BaseException) -> str:
    """The kind of an exception and the first line of its message, as one sentence."""
    lines = str(fault).strip().splitlines()
    text = f"{type(fault).__name__}: {lines[0].strip() if lines else 'no message'}"
    return text if text.endswith(".") else f"{text}."
