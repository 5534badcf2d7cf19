"""What a recipe is: one id of the papers, and how its numbers are redone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from verigrad.papers.result import Finding, Result, Series
from verigrad.papers.workshop import Workshop

SCALES = ("smoke", "cpu", "gpu", "paper")
Redo = Callable[[Workshop, str], Iterator[Result | Finding | Series]]


def cost_by_scale(cpu: str) -> Mapping[str, str]:
    """What a recipe costs, by scale.

    Args:
        cpu: of one core, as it was measured when the recipes ran in their order, so that a net which several need is
            counted where it was trained. The scales above are reckoned.
    """
    return {"smoke": "seconds", "cpu": cpu, "gpu": "hours", "paper": "days of a GPU"}


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
