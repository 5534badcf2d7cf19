"""Accuracy against eps, under attacks each alone and all together; and what it shows about them.

A sample is broken at an eps if some attack was seen to break it with a change no larger. So the numbers of a curve only
fall, and what an attack finds at a large eps with a small change counts at the small eps too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from verigrad.ledger.statistics import Interval, clopper_pearson

FORMAT = 1
# Notes of this kind name the attacks that a level has seen to their end.
NOTE = "curve"
# The levels, as they were written, in the identity of each level's ledger.
LADDER = "eps_curve"
WORST = "worst case of all"


class Level(NamedTuple):
    """One eps: as it was written, its size, the folder of its ledger, and that ledger's seal."""

    label: str
    eps: float
    folder: str
    seal: str


class Row(NamedTuple):
    """One attack. `kind` is 'budget' or 'minimal'; `once` says that it was run at the largest eps only. `broken` counts
    its samples at each level; `missed` those of them that it broke at a larger eps only, though with a change that fits
    into a smaller one at which it was run."""

    label: str
    attack: str
    kind: str
    once: bool
    broken: tuple[int, ...]
    missed: int
    forwards: int
    backwards: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """All that is drawn. `worst` counts at each level the samples that any attack breaks; `ceiling`, where it is not
    None, how many samples can be right at most at a level at which every image can become the same one."""

    identity: Mapping[str, Any]
    n: int
    correct: int
    levels: tuple[Level, ...]
    rows: tuple[Row, ...]
    worst: tuple[int, ...]
    ceiling: tuple[int | None, ...]

    @property
    def norm(self) -> str:
        return str(self.identity["threat"]).partition(":")[0]

    def accuracy(self, broken: int) -> float:
        return (self.correct - broken) / self.n

    def interval(self, broken: int) -> Interval:
        """The exact 95 % interval of the accuracy."""
        return clopper_pearson(self.correct - broken, self.n)


def folder_of(label: str) -> str:
    """The name of a level's folder: eps-0.02, eps-2of255."""
    return f"eps-{label.replace('/', 'of')}"


def feet(curve: Curve) -> list[str]:
    """What the numbers show about the attacks, in sentences."""
    told = []
    if missed := [f"{row.label} ({row.missed})" for row in curve.rows if row.missed]:
        told.append(
            f"Samples broken at a larger eps only, with a change that fits into a smaller one: {', '.join(missed)}. "
            "There the attack had missed it. They count as broken from the smaller eps on."
        )
    for level, broken, most in zip(curve.levels, curve.worst, curve.ceiling, strict=True):
        left = curve.correct - broken
        if most is not None and left > most:
            told.append(
                f"At eps {level.label} every image can become the same one, and no answer to it is right for more than "
                f"{most} of the {curve.n} labels, yet {left} samples stand: these attacks miss errors that exist."
            )
            break
    return told


def as_dict(curve: Curve) -> dict[str, Any]:
    """The curve for curve.json. Every list runs over the levels, in their order."""
    shares = [curve.accuracy(broken) for broken in curve.worst]
    return {
        "format": FORMAT,
        "identity": {key: value for key, value in curve.identity.items() if key != "threat"},
        "norm": curve.norm,
        "n": curve.n,
        "correct": curve.correct,
        "clean": curve.accuracy(0),
        "clean_interval": list(curve.interval(0)),
        "levels": [level._asdict() for level in curve.levels],
        "attacks": [
            row._asdict() | {"broken": list(row.broken), "accuracy": [curve.accuracy(broken) for broken in row.broken]}
            for row in curve.rows
        ],
        "worst": {
            "broken": list(curve.worst),
            "accuracy": shares,
            "interval": [list(curve.interval(broken)) for broken in curve.worst],
        },
        "remarks": feet(curve),
    }
