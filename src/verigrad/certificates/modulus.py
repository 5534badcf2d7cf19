"""The omega-bound of Proposition 2.2 (Finlay & Oberman 2021): ‖v‖ ≥ ε where (−ℓ(x) − ω(ε)) / ‖∇ℓ(x)‖_* ≥ ε.

ω(ε) is the largest error of the linear model, r(v) = ℓ(x + v) − ℓ(x) − ⟨v, ∇ℓ(x)⟩ over all x and ‖v‖ ≤ ε (Eq. 5),
estimated by a generalised extreme value fit to the maxima of disjoint blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from verigrad.certificates.balls import LADDERS, Norm, ball, span
from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.extremes import Extreme, Tail, block_maxima, supremum
from verigrad.certificates.gap import (
    Outputs,
    batches,
    believable,
    check_images,
    check_settings,
    judged,
    look,
    without,
)
from verigrad.certificates.remainder import SEEK, Origin, Rung
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, derive_seed

Search = Literal["ball", "gradient", "ascent"]
WHERE = {
    "ball": "at random points of the ball",
    "gradient": "one full step along the gradient",
    "ascent": "by ascent on the error itself",
}


class _Seen(NamedTuple):
    """Of R images: logits (R, K), −ℓ (R,), ‖∇ℓ‖_* (R,), the largest r seen for each ε (R, E), who is finite (R,)."""

    logits: Tensor
    gap: Tensor
    slope: Tensor
    errors: Tensor
    known: Tensor


@dataclass(frozen=True, kw_only=True)
class OmegaBound:
    """The largest ε at which an image passes, given one ω for all images.

    ω is estimated at each ε of a ladder and made to rise with it. Since the bound (−ℓ − ω(ε)) / ‖∇ℓ‖_* holds for every
    ‖v‖ ≤ ε, an image's radius is the largest min{ε, (−ℓ − ω(ε)) / ‖∇ℓ‖_*} over the ladder, which refines it for free.
    Wrong predictions and images with something not finite have radius 0; the latter are left out of the fit and counted
    in facts["not_finite"]. Passes of each image: 1 + E·s forward and 1 backward for E rungs of `ball` (s = steps) and
    `gradient` (s = 1), E·(steps + 3) forward and 1 + E·steps backward for `ascent`.

    Deviations: v stays in the valid box, since nothing else is certified. The paper does not say how v is drawn; random
    v, its plain reading, misses nearly all of ω, and certifies what attacks break (docs/math/gradient-bounds.md).

    Args:
        norm: of the radius; gradients are measured in its dual norm.
        on: whether f is the softmax outputs (the paper) or the logits.
        sampler: how v is sought. 'ball': at random. 'gradient': one full step along ∇ℓ. 'ascent': steps up r, from the
            better of that step and what the rung below found.
        ladder: rising ε, in `norm`; None is `balls.LADDERS`.
        steps: random points, or steps of the ascent, at each ε.
        block: images in a block; which, is drawn.
        tail: 'gev' fits, 'maximum' takes the largest r seen.
        batch: images evaluated together; changes no result.
    """

    norm: Norm = "linf"
    on: Outputs = "probabilities"
    sampler: Search = "ascent"
    ladder: tuple[float, ...] | None = None
    steps: int = 3
    block: int = 20
    tail: Tail = "gev"
    batch: int = 100

    subject = "model"
    fits_data = True

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "block": self.block, "batch": self.batch}
        check_settings("omega-bound", norm=self.norm, on=self.on, tail=self.tail, **counts)
        if self.sampler not in get_args(Search):
            raise BadInput(f"The 'sampler' of omega-bound must be one of {', '.join(WHERE)}. Got {self.sampler!r}.")
        rungs = (0.0, *self.rungs)
        if len(rungs) < 2 or not all(low < high < math.inf for low, high in pairwise(rungs)):
            raise BadInput(f"The 'ladder' of omega-bound must be rising positive numbers. Got {self.ladder}.")

    @property
    def rungs(self) -> tuple[float, ...]:
        return LADDERS[self.norm] if self.ladder is None else self.ladder

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        check_images(x, y, generator)
        order = generator.bits(1).squeeze(1).argsort()
        with left_as_found(model):
            parts = [
                self._seen(model, x[rows], y[rows], generator[rows]) for rows in batches(model, len(x), self.batch)
            ]
        seen = _Seen(*(torch.cat(part) for part in zip(*parts, strict=True)))
        predicted, abstained = judged(seen.logits, seen.known)
        found = self._moduli(seen, order, generator)
        omega = torch.tensor([one.value for one in found], dtype=torch.float64, device=x.device).cummax(0).values
        sure = seen.known & (seen.gap > 0)  # right, where the gap is positive
        radius = torch.where(sure, self._radius(seen, omega), 0.0)
        facts = {"not_finite": float((~seen.known).sum())}
        for eps, one, value in zip(self.rungs, found, omega.tolist(), strict=True):
            facts |= one._replace(value=value).facts("omega", f"({eps:.6g})")
        forwards, backwards = self._passes()
        return Certified(
            radius=torch.minimum(radius, span(self.norm, x)),
            predicted=predicted,
            abstained=abstained,
            alpha=None,
            honesty=Honesty.ESTIMATE,
            assumptions=(
                f"the error of the linear model is at most what was estimated {WHERE[self.sampler]}",
                "a prediction does not depend on batch-mates",
            ),
            forwards=torch.full_like(predicted, forwards),
            backwards=torch.full_like(predicted, backwards),
            facts=facts,
        )

    def _passes(self) -> tuple[int, int]:
        rungs = len(self.rungs)
        if self.sampler == "ascent":
            return rungs * (self.steps + 3), 1 + rungs * self.steps
        return 1 + rungs * (self.steps if self.sampler == "ball" else 1), 1

    def _radius(self, seen: _Seen, omega: Tensor) -> Tensor:
        """(N,) the largest min{ε, (−ℓ − ω(ε)) / ‖∇ℓ‖_*}; a gradient of zero sets no limit below ε."""
        left = seen.gap.double()[:, None] - omega
        rungs = torch.tensor(self.rungs, dtype=torch.float64, device=omega.device)
        slope = seen.slope[:, None]
        reach = torch.where(slope > 0, left / slope.clamp(min=1e-300), torch.inf)
        return torch.where(left > 0, torch.minimum(reach, rungs), 0.0).amax(1)

    def _moduli(self, seen: _Seen, order: Tensor, generator: SampleGenerator) -> list[Extreme]:
        """ω at each rung, from the images where everything was finite."""
        errors = torch.where(seen.known[:, None], seen.errors, 0.0)
        order = order[seen.known[order]] if bool(seen.known.any()) else order[:1]
        seeds = generator.seeds.tolist()
        return [
            supremum(block_maxima(column, order, self.block), tail=self.tail, seed=derive_seed("omega", place, *seeds))
            for place, column in enumerate(errors.T)
        ]

    def _seen(self, model: nn.Module, x: Tensor, y: Tensor, generator: SampleGenerator) -> _Seen:
        here = look(model, x, y, self.on)
        known = believable(here.logits, here.gradient)
        slope = ball(self.norm, 1.0).dual_norm(here.gradient).double()
        origin = Origin(model, self.on, x, y, here._replace(gradient=without(here.gradient, ~known)))
        best = torch.zeros_like(slope)  # v = 0 is in every ball
        found: list[Tensor] = []
        at, below = x, 0.0
        for eps in self.rungs:
            around = ball(self.norm, eps)
            carried = around.project(x + (at - x) * (eps / below), x) if below else None
            rung = Rung(around, carried, self.steps, generator)
            for point, error in SEEK[self.sampler](origin, rung):
                known = known & torch.isfinite(error)
                better = known & (error >= best)
                at = torch.where(better.reshape(-1, 1, 1, 1), point, at)
                best = torch.where(better, error, best)
            found.append(best)
            below = eps
        return _Seen(here.logits, -here.value, slope, torch.stack(found, dim=1), known)
