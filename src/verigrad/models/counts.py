"""The sizes that a model is built from."""

from __future__ import annotations

from verigrad.core.errors import BadInput


def check_counts(model: str, **counts: int) -> None:
    """The sizes of a model are at least 1.

    Raises:
        BadInput: naming the one that is not.
    """
    for name, count in counts.items():
        if count < 1:
            raise BadInput(f"The {name!r} of {model} must be at least 1. Got {count!r}.")
