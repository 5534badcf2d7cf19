"""How Auto-PGD chooses its steps (Croce & Hein 2020, section 3.1): momentum, checkpoints and step sizes that halve."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.threat import Threat

# α of Algorithm 1, the share of the new step in a move, and ρ of section 3.1.
ALPHA, RHO = 0.75, 0.75
# Section 3.1: p_0 = 0, p_1 = 0.22, and each period is 0.03 shorter than the one before, down to 0.06; in hundredths.
FIRST_PERIOD, SHORTER, SHORTEST = 22, 3, 6


def checkpoints(steps: int) -> dict[int, int]:
    """w_j = ⌈p_j · steps⌉ for j = 1, 2, ... as long as steps remain after it, each with its period w_j - w_{j-1}."""
    found: dict[int, int] = {}
    share, period, last = FIRST_PERIOD, FIRST_PERIOD, 0
    while (here := math.ceil(share * steps / 100)) < steps:
        if here > last:
            found[here], last = here - last, here
        period = max(period - SHORTER, SHORTEST)
        share += period
    return found


class Climb(NamedTuple):
    """Where each sample of one start stands; all tensors (R, ...) of the samples still climbing.

    `before` and `here` are its last two iterates, `rises` counts since the last checkpoint, `halved` says whether the
    step size changed there, and `checked_value` is the best score then.
    """

    x: Tensor
    before: Tensor
    here: Tensor
    best: Tensor
    best_gradient: Tensor
    step_size: Tensor
    value: Tensor
    best_value: Tensor
    checked_value: Tensor
    rises: Tensor
    halved: Tensor

    def only(self, which: Tensor) -> Climb:
        return Climb(*(part[which] for part in self))

    def seen(self, gradient: Tensor, value: Tensor) -> Climb:
        """After a look at `here`."""
        value = torch.where(torch.isfinite(value), value, -torch.inf).double()
        better = value > self.best_value
        return self._replace(
            best=torch.where(_column(better), self.here, self.best),
            best_gradient=torch.where(_column(better), gradient, self.best_gradient),
            value=value,
            best_value=torch.where(better, value, self.best_value),
            rises=self.rises + (value > self.value),
        )

    def checked(self, gradient: Tensor, enough: float, which: Tensor) -> tuple[Climb, Tensor]:
        """At a checkpoint: conditions 1 and 2 of section 3.1, and the gradient to go on with.

        `before` stays, so that the next momentum leads from there to the best point, as in the algorithm.
        """
        stalled = ~self.halved & (self.best_value == self.checked_value)
        halve = ((self.rises < enough) | stalled) & which
        after = self._replace(
            here=torch.where(_column(halve), self.best, self.here),
            step_size=torch.where(halve, self.step_size / 2, self.step_size),
            value=torch.where(halve, self.best_value, self.value),
            checked_value=self.best_value,
            rises=torch.zeros_like(self.rises),
            halved=halve,
        )
        return after, torch.where(_column(halve), self.best_gradient, gradient)

    def moved(self, gradient: Tensor, threat: Threat, which: Tensor, alpha: float) -> Climb:
        """One step of `which` (R,), the others rest."""
        there = threat.project(self.here + _column(self.step_size) * threat.steepest(gradient), self.x)
        if alpha < 1:
            there = threat.project(
                self.here + alpha * (there - self.here) + (1 - alpha) * (self.here - self.before), self.x
            )
        return self._replace(before=self.here, here=torch.where(_column(which), there, self.here))


def begin(x: Tensor, start: Tensor, step_size: float) -> Climb:
    """At start (R, C, H, W), before the first look."""
    lowest = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Climb(
        x=x,
        before=start,
        here=start,
        best=start,
        best_gradient=torch.zeros_like(x),
        step_size=torch.full_like(x[:, 0, 0, 0], step_size),
        value=-lowest,  # the first look is no rise
        best_value=lowest,
        checked_value=lowest,
        rises=count,
        halved=count.bool(),
    )


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
