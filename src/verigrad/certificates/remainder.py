"""The error of the loss's linear model, r(v) = ℓ(x + v) − ℓ(x) − ⟨v, ∇ℓ(x)⟩, and three searches for a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.balls import climb, farthest
from verigrad.certificates.gap import Look, Outputs, look, value_at, without
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


class Origin(NamedTuple):
    """Images x (R, C, H, W), their labels y (R,), and the loss and its finite gradient there."""

    model: nn.Module
    on: Outputs
    x: Tensor
    y: Tensor
    here: Look

    def error(self, point: Tensor) -> Tensor:
        """r (R,) float64 at the points x + v: one forward pass."""
        return self._less_linear(point, value_at(self.model, point, self.y, self.on))

    def error_and_gradient(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """r (R,) and ∇r (R, C, H, W), zero where it is not finite: one forward and one backward pass."""
        there = look(self.model, point, self.y, self.on)
        gradient = there.gradient - self.here.gradient
        stuck = ~torch.isfinite(gradient).flatten(1).all(1)
        return self._less_linear(point, there.value), without(gradient, stuck)

    def _less_linear(self, point: Tensor, value: Tensor) -> Tensor:
        move = (point.double() - self.x.double()).flatten(1)
        linear = torch.linalg.vecdot(move, self.here.gradient.double().flatten(1))
        return value.double() - self.here.value.double() - linear


class Rung(NamedTuple):
    """One ball; `below` is what was found in the smaller one, carried to this one's surface, or None in the first."""

    around: Threat
    below: Tensor | None
    steps: int
    generator: SampleGenerator


# Points of the ball and r at each.
Seek = Callable[[Origin, Rung], Iterator[tuple[Tensor, Tensor]]]


def at_random(origin: Origin, rung: Rung) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(rung.steps):
        point = rung.around.sample(origin.x, rung.generator)
        yield point, origin.error(point)


def along_gradient(origin: Origin, rung: Rung) -> Iterator[tuple[Tensor, Tensor]]:
    point = farthest(rung.around, origin.x, origin.here.gradient)
    yield point, origin.error(point)


def by_ascent(origin: Origin, rung: Rung) -> Iterator[tuple[Tensor, Tensor]]:
    """∇r(0) = 0, so it starts from the full step along ∇ℓ, or from what the rung below found if that is better.

    Steps are 2.5 / steps of the radius long (as PGD's, Madry et al. 2018).
    """
    ((point, error),) = along_gradient(origin, rung)
    yield point, error
    if rung.below is not None:
        other = origin.error(rung.below)
        yield rung.below, other
        point = torch.where((other > error).reshape(-1, 1, 1, 1), rung.below, point)
    for _ in range(rung.steps):
        error, gradient = origin.error_and_gradient(point)
        yield point, error
        point = climb(rung.around, point, origin.x, gradient, share=2.5 / rung.steps)
    yield point, origin.error(point)


SEEK: dict[str, Seek] = {"ball": at_random, "gradient": along_gradient, "ascent": by_ascent}
