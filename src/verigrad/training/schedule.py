"""Learning rates as functions of the part of the training that is done: a position is all there is to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from verigrad.core.errors import BadInput


class Schedule(Protocol):
    """From the part done, in [0, 1), to the factor on the learning rate."""

    def __call__(self, done: float) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The rate is multiplied by `factor` each time that the part done reaches one of `at`. No `at`: a constant rate.

    The SONet code has at = (150/350, 300/350) with factors 0.1 and then 0.01.

    Args:
        at: increasing, each in (0, 1).
        factor: in (0, 1].
    """

    at: tuple[float, ...] = ()
    factor: float = 0.1

    def __post_init__(self) -> None:
        if list(self.at) != sorted(set(self.at)) or not all(0 < place < 1 for place in self.at):
            raise BadInput(f"The 'at' of Steps must be increasing numbers in (0, 1). Got {self.at}.")
        if not 0 < self.factor <= 1:
            raise BadInput(f"The 'factor' of Steps must be in (0, 1]. Got {self.factor}.")

    def __call__(self, done: float) -> float:
        return self.factor ** sum(done >= place for place in self.at)


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Up from 1/25 to 1 and down to 4e-6 by half cosines (Smith & Topin 2018; the numbers are those of PyTorch).

    Momentum stays constant, unlike in PyTorch.

    Args:
        peak: where the rate is highest, in (0, 1).
    """

    peak: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise BadInput(f"The 'peak' of OneCycle must be in (0, 1). Got {self.peak}.")

    def __call__(self, done: float) -> float:
        first, last = 1 / 25, 1 / 25e4
        if done < self.peak:
            return _half_cosine(first, 1.0, done / self.peak)
        return _half_cosine(1.0, last, (done - self.peak) / (1 - self.peak))


def _half_cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
