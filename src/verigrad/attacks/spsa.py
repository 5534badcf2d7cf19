"""Simultaneous perturbation stochastic approximation (Uesato et al. 2018, Algorithm 1): an attack without gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES, Score
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

# Adam's decays and epsilon in the authors' code.
BETA_1, BETA_2, ADAM_EPS = 0.9, 0.999, 1e-9
# Directions drawn at a time. Fixed, because the numbers that a sample gets must not depend on the size of its batch.
GROUP = 16


@dataclass(frozen=True, kw_only=True)
class SPSA:
    """Adam on a gradient estimated from pairs of queries x_adv ± delta·v, with v of random signs.

        ĝ = 1/samples · Σ_v (score(x_adv + delta·v) - score(x_adv - delta·v)) / delta · v

    from a random start, with a projection onto the threat after each step and a pass on the projected point; a sample
    that errs there is done. The defaults are the SONet paper's; Uesato et al. use up to 8192 samples. The forwards of
    a sample are steps · (samples + 1) at most, and the judging pass.

    Follows the code in cleverhans 3, which runs one image at a time: queries may leave the box by delta, as there.
    Deviations: the projection is that of the threat, any threat; a pair with a score that is not finite counts as zero.
    Adam's step is nearly the gradient's sign, which suits Linf; under L2 and L0 other attacks do better.

    Where predictions depend on batch-mates, the k-th query of every sample is asked in one joint batch, the coupling
    under which the result is judged, and a sample is scored by its own logits: the perturbations of the others act as
    noise. In the paper a query's batch-mates are other perturbed copies of the same image. A sample that errs only
    rests there, until its batch-mates' moves make it right again.

    Args:
        steps: Adam steps, from 1 up.
        samples: queries for one estimate, an even number from 2 up.
        delta: half the distance of a pair in each pixel.
        step_size: Adam's, in units of the valid box.
        score: what is climbed: 'margin', 'cross_entropy' or 'dlr'.
    """

    steps: int = 20
    samples: int = 32
    delta: float = 0.01
    step_size: float = 0.01
    score: str = "margin"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"The 'steps' of SPSA must be at least 1. Got {self.steps}.")
        if self.samples < 2 or self.samples % 2:
            raise BadInput(f"The 'samples' of SPSA must be an even number from 2 up. Got {self.samples}.")
        for name in ("delta", "step_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {name!r} of SPSA must be a positive number. Got {value}.")
        if self.score not in SCORES:
            raise BadInput(f"The 'score' of SPSA must be one of {', '.join(SCORES)}. Got {self.score!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe = Probe(model, y)
            x_adv = threat.sample(x, generator)
            first, second = torch.zeros_like(x), torch.zeros_like(x)
            rows = torch.arange(len(x), device=x.device)
            for step in range(1, self.steps + 1):
                if not len(rows):
                    break
                gradient = self._estimate(probe, x_adv, rows, generator)
                first[rows] = BETA_1 * first[rows] + (1 - BETA_1) * gradient
                second[rows] = BETA_2 * second[rows] + (1 - BETA_2) * gradient.square()
                length = (second[rows] / (1 - BETA_2**step)).sqrt() + ADAM_EPS
                moved = x_adv[rows] + self.step_size * first[rows] / (1 - BETA_1**step) / length
                x_adv = x_adv.index_copy(0, rows, threat.project(moved, x[rows]))
                asked = torch.arange(len(x), device=x.device) if probe.coupled else rows
                rows = asked[~probe.wrong(probe.logits(x_adv, asked), asked)]
            return probe.result(x_adv, x, threat)

    def _estimate(self, probe: Probe, x_adv: Tensor, rows: Tensor, generator: SampleGenerator) -> Tensor:
        """ĝ (R, C, H, W) at x_adv[rows]."""
        total = torch.zeros_like(x_adv[rows])
        pairs = self.samples // 2
        for taken in range(0, pairs, GROUP):
            streams = generator[rows]
            v = streams.signs(min(GROUP, pairs - taken), *x_adv.shape[1:], dtype=x_adv.dtype)
            generator.counter = streams.counter
            moves = self.delta * torch.cat([v, -v], dim=1)
            ask = _jointly if probe.coupled else _densely
            scores = ask(probe, x_adv, rows, moves, SCORES[self.score])
            rise = scores[:, : v.shape[1]] - scores[:, v.shape[1] :]
            rise = torch.where(torch.isfinite(rise), rise, 0.0).to(x_adv.dtype)
            total += torch.einsum("rq,rqchw->rchw", rise, v)
        return total / (self.samples * self.delta)


def _densely(probe: Probe, x_adv: Tensor, rows: Tensor, moves: Tensor, score: Score) -> Tensor:
    """Scores (R, Q) at x_adv[rows] + moves (R, Q, C, H, W)."""
    logits = probe.queries(x_adv[rows, None] + moves, rows)
    labels = probe.y[rows].repeat_interleave(moves.shape[1])
    return score(logits.flatten(0, 1), labels).reshape(moves.shape[:2])


def _jointly(probe: Probe, x_adv: Tensor, rows: Tensor, moves: Tensor, score: Score) -> Tensor:
    """The same, the k-th moves of all samples in one batch."""
    batches = (x_adv.index_add(0, rows, move) for move in moves.unbind(1))
    return torch.stack([score(probe.logits(batch, rows), probe.y[rows]) for batch in batches], dim=1)
