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

    Those of the papers stand below: `SONET`, `OPTIMAL_CONTROL` and so on; `docs/training.md` has them as specs.

    Args:
        at: increasing, each in (0, 1): epochs over all epochs.
        factor: in (0, 1]; or one for each of `at`, where their steps differ.
    """

    at: tuple[float, ...] = ()
    factor: float | tuple[float, ...] = 0.1

    def __post_init__(self) -> None:
        if list(self.at) != sorted(set(self.at)) or not all(0 < place < 1 for place in self.at):
            raise BadInput(f"The 'at' of Steps must be increasing numbers in (0, 1). Got {self.at}.")
        if not all(0 < factor <= 1 for factor in (self.factor if isinstance(self.factor, tuple) else (self.factor,))):
            raise BadInput(f"The 'factor' of Steps must be in (0, 1]. Got {self.factor}.")
        if isinstance(self.factor, tuple) and len(self.factor) != len(self.at):
            raise BadInput(
                f"The 'factor' of Steps must be one number, or one for each of {len(self.at)} places. "
                f"Got {self.factor}."
            )

    def __call__(self, done: float) -> float:
        reached = sum(done >= place for place in self.at)
        if isinstance(self.factor, tuple):
            return math.prod(self.factor[:reached])
        return self.factor**reached


# Huang et al. 2020, the released code: 350 epochs, rate 0.01, then 1e-3, then 1e-5.
SONET = Steps(at=(150 / 350, 300 / 350), factor=(0.1, 0.01))
# The optimal-control paper, section 5: 150 epochs, rate 0.01.
OPTIMAL_CONTROL = Steps(at=(30 / 150, 60 / 150, 100 / 150), factor=0.2)
# Chu et al. 2020, Table A1: halved every 50 of 100 epochs (MNIST, rate 1e-3) or 200 (CIFAR-10, rate 1e-4).
NATURAL_ROBUSTNESS_MNIST = Steps(at=(50 / 100,), factor=0.5)
NATURAL_ROBUSTNESS_CIFAR = Steps(at=(50 / 200, 100 / 200, 150 / 200), factor=0.5)
# Finlay & Oberman 2021, the released code: 200 epochs, rate 0.1.
GRADIENT_REGULARIZATION = Steps(at=(60 / 200, 120 / 200, 160 / 200), factor=0.2)
# Madry et al. 2018, the released code of the robustness library: 150 epochs, rate 0.1.
MADRY = Steps(at=(50 / 150, 100 / 150))
# Zhang et al. 2019, the released code: 76 epochs, rate 0.1.
TRADES = Steps(at=(75 / 76,))
# Shafahi et al. 2019, the released code on CIFAR-10: 80,000 updates, m of a batch, rate 0.1.
FREE = Steps(at=(40 / 80, 60 / 80))
# Zhang et al. 2019 (YOPO), the released code of YOPO-5-3 on CIFAR-10: 36 epochs, rate 0.2 / 5 for the small network.
YOPO = Steps(at=(30 / 36, 34 / 36))


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
