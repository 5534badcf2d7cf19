"""The fast minimum-norm attack (Pintor et al. 2021, Algorithm 1): a minimal attack under L2, Linf and L0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L0, L2, Linf, Threat

# The authors' code: where the two step sizes end, the first as a share of its start.
LAST_STEP_SHARE, LAST_GAMMA = 0.01, 0.001
# Steps have unit length in L2 whatever the threat's norm (Algorithm 1, line 10).
EUCLIDEAN = L2(eps=1.0)


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Looks for the nearest error in the threat's norm by projected steps on a ball around x whose radius ε adapts.

    After each look at x + δ, with margin m and its gradient g there, γ and α falling along half a cosine:

        ε ← min((1 - γ) · ε, nearest error)   on an error,
        ε ← (1 + γ) · ε                       on none, once an error was met,
        ε ← ‖δ‖ + |m| / ‖g‖_dual              before: the first-order distance of the boundary,
        δ ← Π_ε(δ + α · g / ‖g‖₂), cut to the box.

    Under L0 ε counts pixels, starts at 1 and changes by max(1, γ·ε) downwards and upwards. The nearest error of all
    iterates is returned if it lies inside the threat, and x else; how far the threat allows to go does not change the
    search. A sample that is misclassified at once takes one pass; every other one takes `steps` forwards and
    backwards, one forward at its last iterate, and the judging pass. Nothing is drawn.

    Deviations: g leaves out in the step what would push a pixel out of the box (where many pixels lie on its border,
    steps under L2 come out too short for ε otherwise, and the search may end before the first error); a pixel under L0
    is all its channels, where the authors count channels; the last iterate is looked at, too.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch.

    Args:
        steps: gradient steps, from 1 up; 1000 in the paper.
        step_size: the first α, in pixel units; it falls to a hundredth of this.
        gamma: the first γ, inside (0, 1); it falls to 0.001, or stays where it starts below.
    """

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"The 'steps' of FMN must be at least 1. Got {self.steps}.")
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise BadInput(f"The 'step_size' of FMN must be a positive number. Got {self.step_size}.")
        if not 0 < self.gamma < 1:
            raise BadInput(f"The 'gamma' of FMN must be inside (0, 1). Got {self.gamma}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, L2 | Linf | L0):
            raise BadInput(f"FMN is defined for L2, Linf and L0. Got {threat}.")
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            now = _begin(x, threat)
            for step in range(self.steps):
                everyone = len(rows) == len(x)
                look = probe.ascend(now.here if everyone else x.index_copy(0, rows, now.here), rows, margin)
                wrong = probe.wrong(look.logits, rows)
                nearest.note(now.here, rows, wrong)
                if step == 0 and not probe.coupled:
                    right = ~wrong
                    rows, wrong, look = rows[right], wrong[right], Ascent(*(part[right] for part in look))
                    now = _Walk(*(part[right] for part in now))
                if not len(rows):
                    break
                falling = (1 + math.cos(math.pi * step / self.steps)) / 2
                gamma = min(LAST_GAMMA, self.gamma) + max(self.gamma - LAST_GAMMA, 0) * falling
                step_size = self.step_size * (LAST_STEP_SHARE + (1 - LAST_STEP_SHARE) * falling)
                least = nearest.distance if len(rows) == len(x) else nearest.distance[rows]
                now = now.resized(look, wrong, least, gamma, threat).moved(step_size, look.gradient, threat)
            if len(rows):
                logits = probe.logits(x.index_copy(0, rows, now.here), rows)
                nearest.note(now.here, rows, probe.wrong(logits, rows))
            return nearest.result(probe)


class _Walk(NamedTuple):
    """Where each sample stands: its image, its iterate (R, C, H, W), and ε and its largest useful value (R,)."""

    x: Tensor
    here: Tensor
    radius: Tensor
    farthest: Tensor

    def resized(self, look: Ascent, wrong: Tensor, least: Tensor, gamma: float, threat: Threat) -> _Walk:
        """The new ε, from the look at `here` and the distance (R,) of the nearest error so far, infinite if none."""
        radius = self.radius
        if isinstance(threat, L0):
            nearer = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), least)
            wider = torch.maximum(radius + 1, (radius * (1 + gamma)).floor())
        else:
            nearer = torch.minimum(radius * (1 - gamma), least)
            # Under L2 what the box stops is missing from the gain; under Linf ε reaches the box pixel by pixel.
            usable = self._usable(look.gradient, threat) if isinstance(threat, L2) else look.gradient
            slope = threat.dual_norm(usable).double()
            there = threat.distance(self.here, self.x) + look.value.double().abs() / slope
            there = torch.where(torch.isfinite(there), there, self.farthest)
            wider = radius * (1 + gamma)
            wider = torch.where(torch.isfinite(least), wider, torch.maximum(wider, there))
        radius = torch.where(wrong, nearer, wider).clamp(min=0)
        return self._replace(radius=torch.minimum(radius, self.farthest))

    def moved(self, step_size: float, gradient: Tensor, threat: Threat) -> _Walk:
        delta = self.here + step_size * EUCLIDEAN.steepest(self._usable(gradient, threat)) - self.x
        return self._replace(here=(self.x + _into_ball(delta, self.radius, threat)).clamp(*threat.bounds))

    def _usable(self, gradient: Tensor, threat: Threat) -> Tensor:
        """The gradient without what would push a pixel out of the box."""
        low, high = threat.bounds
        stuck = ((gradient > 0) & (self.here >= high)) | ((gradient < 0) & (self.here <= low))
        return gradient.masked_fill(stuck, 0)


def _begin(x: Tensor, threat: Threat) -> _Walk:
    low, high = threat.bounds
    farthest = threat.distance(torch.where(x - low > high - x, low, high), x)
    return _Walk(x, x, torch.full_like(farthest, 1.0 if isinstance(threat, L0) else 0.0), farthest)


def _into_ball(delta: Tensor, radius: Tensor, threat: Threat) -> Tensor:
    """The nearest point to delta (R, C, H, W) in the ball of threat's norm with each sample's own radius (R,)."""
    radius = radius.to(delta.dtype).reshape(-1, 1, 1, 1)
    if isinstance(threat, Linf):
        return torch.minimum(torch.maximum(delta, -radius), radius)
    if isinstance(threat, L2):
        length = delta.flatten(1).norm(dim=1).clamp(min=torch.finfo(delta.dtype).tiny).reshape(-1, 1, 1, 1)
        return delta * (radius / length).clamp(max=1)
    size = delta.square().sum(1, keepdim=True)
    rank = size.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).reshape(size.shape)
    return torch.where(rank < radius, delta, 0.0)
