"""The balls of the estimate certificates: Linf and L2 are the threats' own, L1 is here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat

Norm = Literal["linf", "l2", "l1"]
# Radii of each norm, for images in [0, 1]: doubling up to where nothing ordinary is certified any more.
LADDERS: dict[str, tuple[float, ...]] = {
    "linf": tuple(k / 255 for k in (2, 4, 8, 16, 32, 64)),
    "l2": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0),
    "l1": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
}


def _flat(t: Tensor) -> Tensor:
    return t.flatten(1)


@dataclass(frozen=True, kw_only=True)
class L1(Threat):
    """All pixels together move by at most eps. No attack takes this threat; certificates sample from it."""

    eps: float

    @property
    def size(self) -> float:
        return self.eps

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """d_i = sign(g_i)·min(max(|g_i| − λ, 0), room_i) with the one λ ≥ 0 that gives Σ|d_i| = eps (KKT conditions).

        The sum falls piecewise linearly in λ, with corners at |g_i| and |g_i| − room_i: λ is read off between the two
        corners where it passes eps.
        """
        g = _flat(x_adv).double() - _flat(x).double()
        room = _room(x, g, self.bounds)
        size = g.abs()
        corners, order = torch.cat([size, size - room], dim=1).sort(dim=1, descending=True)
        slope = torch.where(order < size.shape[1], 1.0, -1.0).to(size.dtype).cumsum(1)
        rise = slope[:, :-1] * (corners[:, :-1] - corners[:, 1:])
        total = torch.cat([torch.zeros_like(size[:, :1]), rise.cumsum(1)], dim=1)
        # The last corner before the sum passes eps; from there it grows by `slope` for each unit that λ falls.
        last = ((total <= self.eps).sum(1, keepdim=True) - 1).clamp(min=0)
        left = (self.eps - total.gather(1, last)) / slope.gather(1, last).clamp(min=1)
        level = (corners.gather(1, last) - left).clamp(min=0)
        d = g.sign() * torch.minimum((size - level).clamp(min=0), room)
        return _moved(x, d, self.bounds)

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = _flat(gradient)
        place = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter(1, place, flat.gather(1, place).sign()).reshape(gradient.shape)

    def sample(self, x: Tensor, generator: SampleGenerator) -> Tensor:
        """A uniform point of the ball (n of n + 1 exponentials over their sum), projected onto ball ∩ box."""
        n = math.prod(x.shape[1:])
        exponential = -torch.log1p(-generator.uniform(n + 1, dtype=torch.float64))
        share = exponential[:, :n] / exponential.sum(1, keepdim=True)
        move = self.eps * share * generator.signs(n, dtype=torch.float64)
        return self.project((x.double() + move.reshape(x.shape)).to(x.dtype), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _flat(x_adv.double() - x.double()).abs().sum(1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        return _flat(gradient).abs().amax(1)

    def farthest(self, x: Tensor, gradient: Tensor) -> Tensor:
        """argmax ⟨gradient, v⟩ over ball ∩ box: pixels are used up one after another, the steepest first."""
        g = _flat(gradient).double()
        room = torch.where(g == 0, 0.0, _room(x, g, self.bounds))
        order = g.abs().argsort(dim=1, descending=True)
        taken = room.gather(1, order)
        before = taken.cumsum(1) - taken
        d = torch.zeros_like(g).scatter(1, order, torch.minimum(taken, (self.eps - before).clamp(min=0)))
        return _moved(x, g.sign() * d, self.bounds)

    def _slack(self, x: Tensor) -> float:
        return super()._slack(x) * math.prod(x.shape[1:])


def _room(x: Tensor, g: Tensor, bounds: tuple[float, float]) -> Tensor:
    """How far each pixel (B, n) may go in the direction of g (B, n)."""
    start = _flat(x).double()
    return torch.where(g > 0, bounds[1] - start, start - bounds[0]).clamp(min=0)


def _moved(x: Tensor, d: Tensor, bounds: tuple[float, float]) -> Tensor:
    # Rounding to the input's type may leave the box by one unit in the last place: cut it there.
    return (x.double() + d.reshape(x.shape)).to(x.dtype).clamp(*bounds)


def ball(norm: Norm, eps: float) -> Threat:
    """The ball of that radius in [0, 1]."""
    kinds = {"linf": Linf, "l2": L2, "l1": L1}
    return kinds[norm](eps=eps)


def farthest(threat: Threat, x: Tensor, gradient: Tensor) -> Tensor:
    """The end of one full step along the gradient: where its linear model is greatest in ball ∩ box (L2: nearly)."""
    if isinstance(threat, L1):
        return threat.farthest(x, gradient)
    return threat.project(x + threat.size * threat.steepest(gradient), x)


def climb(threat: Threat, at: Tensor, x: Tensor, gradient: Tensor, *, share: float) -> Tensor:
    """One step up from `at`, `share` of the radius long: of projected gradient ascent, in L1 of Frank and Wolfe.

    A projected step in L1 would move one pixel; towards `farthest` (Frank & Wolfe 1956) it moves as many as the radius
    can move.
    """
    if isinstance(threat, L1):
        return at + min(share, 1.0) * (threat.farthest(x, gradient) - at)
    return threat.project(at + share * threat.size * threat.steepest(gradient), x)


def span(norm: Norm, x: Tensor) -> Tensor:
    """(N,) float64, the distance from x to the farthest valid image: no radius needs to be larger."""
    reach = _flat(torch.maximum(x, 1 - x)).double()
    return {"linf": reach.amax(1), "l2": reach.norm(dim=1), "l1": reach.sum(1)}[norm]
