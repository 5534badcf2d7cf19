"""Decoupled direction and norm (Rony et al. 2019, Algorithm 1): a fast minimal attack under L2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Threat

# Section 4: the step size falls to this share of its first value along half a cosine.
LAST_STEP_SHARE = 0.01


@dataclass(frozen=True, kw_only=True)
class DDN:
    """Looks for the nearest error in L2 by walking on a sphere around x whose radius ε follows the prediction.

        δ ← δ + α · g / ‖g‖₂,   ε ← (1 - gamma) · ε on an error, (1 + gamma) · ε else,
        δ ← ε · δ / ‖δ‖₂, cut to the box.

    The nearest error of all iterates is returned if it lies inside the threat, and x else; how far the threat allows
    to go does not change the search. A sample that is misclassified at once takes one pass; every other one takes
    `steps` forwards and backwards, one forward at its last iterate, and the judging pass. Nothing is drawn.

    Deviations: iterates are not rounded to 256 grey levels; ε is never more than the distance to the farthest corner of
    the box, as in the authors' library; the last iterate is looked at, too; a sample whose gradient is zero goes on
    along the direction that it has, where the library steps at random.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch.

    Args:
        steps: gradient steps, from 1 up.
        step_size: the first α, in pixel units; it falls to a hundredth of this.
        radius: the first ε, in pixel units.
        gamma: by which share ε changes from step to step, inside (0, 1).
        score: what is climbed: 'cross_entropy' (the paper's), 'margin' or 'dlr'.
    """

    steps: int = 100
    step_size: float = 1.0
    radius: float = 1.0
    gamma: float = 0.05
    score: str = "cross_entropy"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"The 'steps' of DDN must be at least 1. Got {self.steps}.")
        for name in ("step_size", "radius"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {name!r} of DDN must be a positive number. Got {value}.")
        if not 0 < self.gamma < 1:
            raise BadInput(f"The 'gamma' of DDN must be inside (0, 1). Got {self.gamma}.")
        if self.score not in SCORES:
            raise BadInput(f"The 'score' of DDN must be one of {', '.join(SCORES)}. Got {self.score!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, L2):
            raise BadInput(f"DDN is defined for L2. Got {threat}. Use 'fmn' for other threats.")
        low, high = threat.bounds
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            origin, here = x, x
            farthest = _length(torch.maximum(x - low, high - x))
            radius = torch.full_like(farthest, self.radius)
            for step in range(self.steps):
                everyone = len(rows) == len(x)
                look = probe.ascend(here if everyone else x.index_copy(0, rows, here), rows, SCORES[self.score])
                wrong, gradient = probe.wrong(look.logits, rows), look.gradient
                nearest.note(here, rows, wrong)
                if step == 0 and not probe.coupled:
                    parts = (rows, origin, here, farthest, radius, gradient, wrong)
                    rows, origin, here, farthest, radius, gradient, wrong = (part[~wrong] for part in parts)
                if not len(rows):
                    break
                delta = here - origin + self._step_size(step) * threat.steepest(gradient)
                radius = torch.where(wrong, radius * (1 - self.gamma), radius * (1 + self.gamma)).minimum(farthest)
                scale = radius / _length(delta).clamp(min=torch.finfo(x.dtype).tiny)
                here = (origin + scale.reshape(-1, 1, 1, 1) * delta).clamp(low, high)
            if len(rows):
                logits = probe.logits(x.index_copy(0, rows, here), rows)
                nearest.note(here, rows, probe.wrong(logits, rows))
            return nearest.result(probe)

    def _step_size(self, step: int) -> float:
        falling = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.step_size * (LAST_STEP_SHARE + (1 - LAST_STEP_SHARE) * falling)


def _length(delta: Tensor) -> Tensor:
    return delta.flatten(1).norm(dim=1)
