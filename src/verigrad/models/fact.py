"""One fact about a model: it holds, it does not, or it was not measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that is so of a model and its images, or is not.

    Args:
        name: one of `facts.NAMES`.
        holds: None where it was not measured, or cannot be told.
        value: what was measured, as a number or a word; None where nothing was.
        detail: what that means, in one line; of a fatal fact, with the fix.
        fatal: it does not hold, and the model cannot be judged for it.
    """

    name: str
    holds: bool | None
    value: float | str | None
    detail: str
    fatal: bool = False


def fact(name: str, holds: bool | None, value: float | str | None, detail: str) -> Fact:
    """A fact with which the model can be judged."""
    return Fact(name=name, holds=holds, value=value, detail=detail)


def fatal(name: str, value: float | str | None, detail: str) -> Fact:
    """A fact with which it cannot."""
    return Fact(name=name, holds=False, value=value, detail=detail, fatal=True)
