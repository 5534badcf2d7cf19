"""What a recipe is: one id of the papers, and how its numbers are redone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from verigrad.papers.result import Finding, Result, Series
from verigrad.papers.workshop import Workshop

SCALES = ("smoke", "cpu", "gpu", "paper")
Redo = Callable[[Workshop, str], Iterator[Result | Finding | Series]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One id of the papers.

    Args:
        id: PAPER/WHAT.
        title: what it shows.
        redo: gives its cells, findings and curves, one after the other.
        cost: by scale, how long it takes and on what, as it was measured or reckoned.
        needs: by scale, what must be at hand that does not come with verigrad; empty if only time.
    """

    id: str
    title: str
    redo: Redo
    cost: Mapping[str, str] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
