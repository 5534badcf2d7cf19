"""The momentum iterative fast gradient method (Dong et al. 2018, Algorithm 1), and the climb that DI²-FGSM shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

Keep = Literal["best", "last"]
Look = Callable[[Tensor, Tensor], Ascent]
"""Of a whole batch (B, C, H, W) and rows (R,): the logits at these rows, and the gradient to be climbed there."""


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """A budget attack that climbs a running sum of normalised gradients:

        g ← momentum · g + ∇score / ‖∇score‖₁,   x_adv ← Π(x_adv + step_size · steepest(g))      Eq. (6), (7)

    with the sign of g under Linf and g / ‖g‖₂ under L2 (Eq. (9)); any other threat is climbed by its own steepest step.
    The norm is each sample's own. A gradient that is zero, or not finite, adds nothing: the sample goes on along what
    it has summed up. A sample that never errs takes `steps` forwards and backwards and the judging pass.

    Deviations: by default a sample stops at its first error (keep = 'best'); the projection is onto ball ∩ box.

    Where predictions depend on batch-mates, a sample that errs rests, with the momentum that it has, until its
    batch-mates' moves make it right again.

    Args:
        steps: gradient steps, from 1 up.
        step_size: length of one step in the threat's norm; None means eps / steps, as in the paper.
        momentum: the decay factor μ, from 0 up; 0 leaves the iterative fast gradient method, 1 is the paper's choice.
        score: what is climbed: 'cross_entropy', 'margin' or 'dlr'.
        random_start: whether the start is random inside the threat.
        keep: 'best' takes the first iterate that errs and stops there; 'last' moves every sample through every step.
    """

    steps: int = 10
    step_size: float | None = None
    momentum: float = 1.0
    score: str = "cross_entropy"
    random_start: bool = False
    keep: Keep = "best"

    def __post_init__(self) -> None:
        check_climb("MIFGSM", self.steps, self.step_size, self.momentum, self.score, self.keep)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        step_size = threat.size / self.steps if self.step_size is None else self.step_size
        with left_as_found(model):
            probe, score = Probe(model, y), SCORES[self.score]
            x_adv = threat.sample(x, generator) if self.random_start else x
            climb = Climb(threat, x, self.steps, step_size, self.momentum, self.keep)
            return probe.result(climb(probe, x_adv, lambda here, rows: probe.ascend(here, rows, score)), x, threat)


@dataclass(frozen=True, eq=False)
class Climb:
    """Projected steps from any point along the running sum of normalised gradients."""

    threat: Threat
    x: Tensor
    steps: int
    step_size: float
    momentum: float
    keep: Keep

    def __call__(self, probe: Probe, x_adv: Tensor, look: Look) -> Tensor:
        """The points (B, C, H, W) that the samples end at, from x_adv (B, C, H, W)."""
        best = self.keep == "best"
        everyone = torch.arange(len(self.x), device=self.x.device)
        active = torch.ones_like(everyone, dtype=torch.bool)
        total = torch.zeros_like(self.x)
        for _ in range(self.steps):
            rows = active.nonzero().squeeze(1)
            if not len(rows):
                break
            if probe.coupled and best:
                rows = everyone
            seen = look(x_adv, rows)
            dense = len(rows) == len(self.x)
            before, origin, summed = (t if dense else t[rows] for t in (x_adv, self.x, total))
            ahead = self.momentum * summed + unit_l1(seen.gradient)
            after = self.threat.project(before + self.step_size * self.threat.steepest(ahead), origin)
            if best:
                wrong = probe.wrong(seen.logits, rows)
                active = active.index_copy(0, rows, ~wrong)
                rest = wrong.reshape(-1, 1, 1, 1)
                after, ahead = torch.where(rest, before, after), torch.where(rest, summed, ahead)
            x_adv = after if dense else x_adv.index_copy(0, rows, after)
            total = ahead if dense else total.index_copy(0, rows, ahead)
        return x_adv


def unit_l1(gradient: Tensor) -> Tensor:
    """Each sample of (R, C, H, W) divided by its mean absolute value; a zero gradient stays zero.

    The paper divides by the sum. The mean differs from it by a constant, which neither sign nor direction of a sum of
    such gradients shows, and keeps numbers near one. Lengths are taken in units of the largest entry: the sum over a
    saturated gradient would underflow.
    """
    tiny = torch.finfo(gradient.dtype).tiny
    flat = gradient.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp(min=tiny)
    return (flat / flat.abs().mean(1, keepdim=True).clamp(min=tiny)).reshape(gradient.shape)


def check_climb(name: str, steps: int, step_size: float | None, momentum: float, score: str, keep: str) -> None:
    """Refuses what neither MI-FGSM nor DI²-FGSM can climb with.

    Raises:
        BadInput: naming the value.
    """
    if steps < 1:
        raise BadInput(f"The 'steps' of {name} must be at least 1. Got {steps}.")
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise BadInput(f"The 'step_size' of {name} must be a positive number. Got {step_size}.")
    if not (math.isfinite(momentum) and momentum >= 0):
        raise BadInput(f"The 'momentum' of {name} must be a finite number from 0 up. Got {momentum}. The paper has 1.")
    if score not in SCORES:
        raise BadInput(f"The 'score' of {name} must be one of {', '.join(SCORES)}. Got {score!r}.")
    if keep not in ("best", "last"):
        raise BadInput(f"'keep' of {name} must be best or last. Got {keep!r}.")
