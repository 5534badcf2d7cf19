"""The L-bound of Proposition 2.2 (Finlay & Oberman 2021): ‖v‖ ≥ max{−ℓ(x), 0} / L.

L is the largest dual norm of ∇ℓ, estimated by a generalised extreme value fit to the maxima of disjoint blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn

from verigrad.certificates.balls import LADDERS, Norm, ball, climb, farthest, span
from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.extremes import Extreme, Tail, block_maxima, supremum
from verigrad.certificates.gap import (
    Outputs,
    Sampler,
    batches,
    believable,
    check_images,
    check_settings,
    judged,
    look,
    without,
)
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, derive_seed

WHERE = {
    "images": "at the images alone",
    "ball": "at random points around each image",
    "gradient": "one full step along the gradient from each image",
    "ascent": "along an ascent from each image",
}


class _Seen(NamedTuple):
    """Of R images: logits (R, K), the gap −ℓ (R,), the largest dual norm of ∇ℓ seen (R,), whether all was finite."""

    logits: Tensor
    gap: Tensor
    norm: Tensor
    known: Tensor


@dataclass(frozen=True, kw_only=True)
class LBound:
    """Each image's gap over one Lipschitz constant of the loss, as seen around all images.

    Wrong predictions and images with something not finite have radius 0; the latter are left out of the fit and counted
    in facts["not_finite"]. Costs 1 + k forward and backward passes an image: k = 0 for `images`, 1 for `gradient` and
    `steps` for `ball` and `ascent`. The paper looks at the data alone, which is sampler=images, and says neither how
    many maxima it takes nor how long a block is.

    Args:
        norm: of the radius; gradients are measured in its dual norm.
        on: whether f is the softmax outputs (the paper) or the logits.
        sampler: where gradients are taken: see `Sampler`.
        eps: how far from the images, in `norm`; None is the top of the norm's ladder (`balls.LADDERS`).
        steps: random points, or steps of the ascent on ℓ.
        block: images in a block; which, is drawn.
        tail: 'gev' fits, 'maximum' takes the largest norm seen.
        batch: images evaluated together; changes no result.
    """

    norm: Norm = "linf"
    on: Outputs = "probabilities"
    sampler: Sampler = "ascent"
    eps: float | None = None
    steps: int = 5
    block: int = 20
    tail: Tail = "gev"
    batch: int = 100

    subject = "model"
    fits_data = True

    def __post_init__(self) -> None:
        counts = {"steps": self.steps, "block": self.block, "batch": self.batch}
        check_settings("l-bound", norm=self.norm, on=self.on, tail=self.tail, **counts)
        if self.sampler not in get_args(Sampler):
            raise BadInput(f"The 'sampler' of l-bound must be one of {', '.join(WHERE)}. Got {self.sampler!r}.")
        if self.eps is not None and not 0 < self.eps < float("inf"):
            raise BadInput(f"The 'eps' of l-bound must be a positive number. Got {self.eps}.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        check_images(x, y, generator)
        order = generator.bits(1).squeeze(1).argsort()
        with left_as_found(model):
            parts = [
                self._seen(model, x[rows], y[rows], generator[rows]) for rows in batches(model, len(x), self.batch)
            ]
        seen = _Seen(*(torch.cat(part) for part in zip(*parts, strict=True)))
        predicted, abstained = judged(seen.logits, seen.known)
        constant = _constant(seen, order, self.block, self.tail, generator)
        largest = span(self.norm, x)
        radius = seen.gap.double() / constant.value if constant.value > 0 else largest
        sure = seen.known & (seen.gap > 0)  # right, where the gap is positive
        passes = torch.full_like(predicted, 1 + self._looks())
        return Certified(
            radius=torch.where(sure, torch.minimum(radius, largest), 0.0),
            predicted=predicted,
            abstained=abstained,
            alpha=None,
            honesty=Honesty.ESTIMATE,
            assumptions=(
                f"the Lipschitz constant is at most what was estimated from gradients {WHERE[self.sampler]}",
                "a prediction does not depend on batch-mates",
            ),
            forwards=passes,
            backwards=passes.clone(),
            facts={**constant.facts("L"), "not_finite": float((~seen.known).sum())},
        )

    def _looks(self) -> int:
        return {"images": 0, "gradient": 1}.get(self.sampler, self.steps)

    def _seen(self, model: nn.Module, x: Tensor, y: Tensor, generator: SampleGenerator) -> _Seen:
        around = ball(self.norm, LADDERS[self.norm][-1] if self.eps is None else self.eps)
        here = look(model, x, y, self.on)
        known = believable(here.logits, here.gradient)
        norm = around.dual_norm(here.gradient).double()
        at, gradient = x, without(here.gradient, ~known)
        for _ in range(self._looks()):
            if self.sampler == "ball":
                at = around.sample(x, generator)
            elif self.sampler == "gradient":
                at = farthest(around, x, gradient)
            else:
                at = climb(around, at, x, gradient, share=2.5 / self.steps)
            there = look(model, at, y, self.on)
            known = known & believable(there.logits, there.gradient)
            norm = torch.maximum(norm, around.dual_norm(there.gradient).double())
            gradient = without(there.gradient, ~known)
        return _Seen(here.logits, -here.value, norm, known)


def _constant(seen: _Seen, order: Tensor, block: int, tail: Tail, generator: SampleGenerator) -> Extreme:
    """The Lipschitz constant, from the images where everything was finite."""
    norms = torch.where(seen.known, seen.norm, 0.0)
    order = order[seen.known[order]] if bool(seen.known.any()) else order[:1]
    seed = derive_seed("l-bound", *generator.seeds.tolist())
    return supremum(block_maxima(norms, order, block), tail=tail, seed=seed)
