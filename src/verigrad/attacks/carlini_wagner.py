"""Carlini and Wagner's Linf attack (2017, section VI.C) as the code of the SONet paper runs it, for a whole batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.attacks.tanh_space import TanhSpace
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

# Constants of the code followed: a round goes on only while its loss falls by more than PROGRESS between two checks; a
# tau below one grey level ends the search; Adam's decays and epsilon.
PROGRESS = 1e-4
LAST_TAU = 1 / 256
BETA_1, BETA_2, ADAM_EPS = 0.9, 0.999, 1e-7


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerLinf:
    """Looks for the nearest error in Linf, then cuts it to the threat.

    With x(w) of `TanhSpace` and w = w(x) + δ, each round minimises by a fresh Adam

        Σ_i max(|x(w) - x|_i - tau, 0) + constant · max(Z_y - max_{j≠y} Z_j, 0).

    A round in which some iterate erred is followed by one from its end with tau ← tau_decay · min(tau, its largest
    change); the first round without an error ends the search, as does tau ≤ 1/256. A round also ends when a tenth of
    its steps lowered the loss by less than 1e-4. The nearest error of all iterates is projected onto the threat
    (under Linf: clipped); a sample without any keeps its clean image. Nothing is drawn.

    Deviations from the SONet code: samples run side by side, each with its own tau, Adam and rounds; a sample is done
    at its first error inside the threat, since the cut would not change a nearer one either; an error is a prediction
    other than y, where the code compares with the clean prediction; a gradient that is not finite counts as zero. Any
    threat is accepted, but the search is always in Linf.

    Kept as in the code: pixels on the box's border hardly move, since tanh is flat there, and a search whose loss falls
    by less than 1e-4 in its first steps is given up after a tenth of a round. On such images other attacks do better.

    Where predictions depend on batch-mates, an iterate is judged and climbed among the current iterates of the others,
    by the gradient of the batch's summed margins, and samples that are done stay at their nearest error. The code runs
    batches of one, so there the two differ; an error met on the way need not stand in the final batch.

    Args:
        steps: Adam steps in one round, from 1 up.
        step_size: Adam's, in w (units of atanh).
        constant: weight of the hinged margin.
        tau_decay: factor on tau from round to round, inside (0, 1).
    """

    steps: int = 100
    step_size: float = 0.005
    constant: float = 0.01
    tau_decay: float = 0.9

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"The 'steps' of CarliniWagnerLinf must be at least 1. Got {self.steps}.")
        for name in ("step_size", "constant"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {name!r} of CarliniWagnerLinf must be a positive number. Got {value}.")
        if not 0 < self.tau_decay < 1:
            raise BadInput(f"The 'tau_decay' of CarliniWagnerLinf must be inside (0, 1). Got {self.tau_decay}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe = Probe(model, y)
            search = _Search(self, x, threat)
            while len(search.rows):
                search.advance(probe.ascend(search.look_at(), search.rows, margin), probe)
            return probe.result(threat.project(search.best, x), x, threat)


class _Round(NamedTuple):
    """Where each sample of the search stands in its round; all tensors (R, ...) of the samples still searching.

    `w` is the round's start, `origin` the image that tau is measured from (x up to the shrinking), `delta` and Adam's
    two moments belong to the round, `checked_loss` is the loss at the last check.
    """

    x: Tensor
    origin: Tensor
    w: Tensor
    delta: Tensor
    first: Tensor
    second: Tensor
    step: Tensor
    tau: Tensor
    checked_loss: Tensor
    found: Tensor


class _Search:
    """The batch's nearest errors so far, `best` (B, C, H, W), and the rounds of `rows` (R,), the samples not done."""

    def __init__(self, attack: CarliniWagnerLinf, x: Tensor, threat: Threat) -> None:
        self.attack = attack
        self.threat = threat
        self.rows = torch.arange(len(x), device=x.device)
        self.best = x.clone()
        ones = torch.ones(len(x), dtype=x.dtype, device=x.device)
        self.best_distance = ones * torch.inf
        self.space = TanhSpace(bounds=threat.bounds)
        w = self.space.inverse(x)
        zero = torch.zeros_like(x)
        step = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.state = _Round(x, self.space.image(w), w, zero, zero, zero, step, ones, ones * torch.inf, step.bool())
        self.here = self.state.origin

    def look_at(self) -> Tensor:
        """The whole batch with the current iterates; samples that are done rest at their nearest error."""
        return self.here if len(self.rows) == len(self.best) else self.best.index_copy(0, self.rows, self.here)

    def advance(self, look: Ascent, probe: Probe) -> None:
        """One Adam step of each sample, and what follows from it."""
        now, here, attack = self.state, self.here, self.attack
        wrong = probe.wrong(look.logits, self.rows)
        self._keep_nearest(wrong)
        gap = here - now.origin
        excess = gap.abs() - _column(now.tau)
        loss = excess.clamp(min=0).flatten(1).sum(1) + attack.constant * (-look.value).clamp(min=0)
        hinge = _column(look.value < 0) * (-attack.constant) * look.gradient
        gradient = (gap.sign() * (excess > 0) + hinge) * self.space.slope(here)
        step, first, second = now.step + 1, *_moments(now, gradient)
        t = _column(step).to(gradient.dtype)
        length = (second / (1 - BETA_2**t)).sqrt() + ADAM_EPS
        delta = now.delta - attack.step_size * first / (1 - BETA_1**t) / length
        # The first step of a round and every tenth of its steps are checks; a loss that is NaN is no progress.
        check = now.step % math.ceil(attack.steps / 10) == 0
        ended = (check & ~(now.checked_loss - loss > PROGRESS)) | (step >= attack.steps)
        self.state = now._replace(
            delta=delta,
            first=first,
            second=second,
            step=step,
            found=now.found | wrong,
            checked_loss=torch.where(check, loss, now.checked_loss),
        )
        self.here = self.space.image(now.w + delta)
        inside = wrong & self.threat.contains(here, now.x)
        failed = ended & ~self.state.found
        self._begin_rounds(ended & ~failed)
        self._drop(inside | failed | (self.state.tau <= LAST_TAU))

    def _keep_nearest(self, wrong: Tensor) -> None:
        distance, least = (self.here - self.state.x).flatten(1).abs().amax(1), self.best_distance[self.rows]
        better = wrong & (distance < least)
        # Boolean indices would have to wait for the accelerator.
        self.best[self.rows] = torch.where(_column(better), self.here, self.best[self.rows])
        self.best_distance[self.rows] = torch.where(better, distance, least)

    def _begin_rounds(self, which: Tensor) -> None:
        """Each of `which` (R,) starts again from where it is, with a smaller tau."""
        if not bool(which.any()):
            return
        now = self.state
        change = (self.here - now.origin).flatten(1).abs().amax(1)
        tau = torch.where(which, self.attack.tau_decay * torch.minimum(now.tau, change), now.tau)
        images = _column(which)
        self.state = now._replace(
            w=torch.where(images, self.space.inverse(self.here), now.w),
            delta=now.delta.masked_fill(images, 0),
            first=now.first.masked_fill(images, 0),
            second=now.second.masked_fill(images, 0),
            step=now.step.masked_fill(which, 0),
            tau=tau,
            checked_loss=now.checked_loss.masked_fill(which, torch.inf),
            found=now.found & ~which,
        )
        self.here = self.space.image(self.state.w + self.state.delta)

    def _drop(self, done: Tensor) -> None:
        if bool(done.any()):
            self.rows, self.here = self.rows[~done], self.here[~done]
            self.state = _Round(*(t[~done] for t in self.state))


def _moments(now: _Round, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Adam's two running means after one more gradient."""
    return (
        BETA_1 * now.first + (1 - BETA_1) * gradient,
        BETA_2 * now.second + (1 - BETA_2) * gradient.square(),
    )


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
