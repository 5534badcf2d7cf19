"""The LogBarrier attack (Finlay, Pooladian & Oberman 2019): minimal, from the far side of the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat

# The authors' code: noise starts at FIRST_NOISE and grows by NOISE_GROWTH; the soft maximum's temperature under Linf;
# an inner loop ends at a step of at most STILL in every pixel.
FIRST_NOISE, NOISE_GROWTH = 0.01, 1.01
TEMPERATURE = 500.0
STILL = 1e-6
# Halvings of the line from x to the nearest error, at the end.
HALVINGS = 8


@dataclass(frozen=True, kw_only=True)
class LogBarrier:
    """Descends on the distance to x plus a barrier that grows without limit towards the decision boundary.

    From an error, with softmax probabilities p and the penalty α of round k, penalty · penalty_decay^k:

        x_adv ← box(x_adv - step_size · ∇(m(x_adv - x) - α · log(max_j p_j - p_y)))

    where m is ½‖·‖₂² under L2 and the soft maximum Σ_i softmax(500·|d|)_i · |d_i| under Linf. A step that leaves the
    errors is halved until it does not, `backtracks` times at most; then the round ends, as it does after `steps` steps
    or when nothing moves. At the end the line from x to the nearest error met is halved eight times. The nearest error
    is returned if it lies inside the threat, and x else; the threat's size plays no part before that.

    Start: x plus normal noise of deviation 0.01 · 1.01^k, cut to the box, for k = 0, 1, ... until it errs, `draws`
    times at most. A sample without a start keeps its image.

    Deviations from the authors' code: it halves for ever where a model answers at random; a step begins with twice the
    share of a step that the one before it could take, for fewer looks; the noise is cut to the box before it is judged,
    not after; the halvings at the end, without which distances far below √α are never reached; samples run side by
    side, each with its own noise, rounds and halvings, and only it is looked at again when its step is halved.

    Passes: a forward and a backward for each point looked at, a forward on x, for each draw and for each halving at the
    end, and the judging pass. Where predictions depend on batch-mates, an error was met beside the others' points of
    that look and need not stand in the final batch.

    Args:
        rounds: values of the penalty, from 1 up.
        steps: descent steps in one round, from 1 up.
        step_size: of a descent step.
        penalty: the first α.
        penalty_decay: factor on α from round to round, inside (0, 1).
        backtracks: halvings of one step, from 1 up.
        draws: starts tried, from 1 up; at 600 the noise has a deviation of 3.9.
    """

    rounds: int = 15
    steps: int = 500
    step_size: float = 0.01
    penalty: float = 0.1
    penalty_decay: float = 0.75
    backtracks: int = 10
    draws: int = 600

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "backtracks", "draws"):
            if getattr(self, name) < 1:
                raise BadInput(f"The {name!r} of LogBarrier must be at least 1. Got {getattr(self, name)}.")
        for name in ("step_size", "penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {name!r} of LogBarrier must be a positive number. Got {value}.")
        if not 0 < self.penalty_decay < 1:
            raise BadInput(f"The 'penalty_decay' of LogBarrier must be inside (0, 1). Got {self.penalty_decay}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf | L2):
            raise BadInput(f"LogBarrier is defined for L2 and Linf. Got {threat}. Use 'fmn' for L0.")
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows, here = self._start(probe, nearest, generator)
            now = _begin(x[rows], here)
            while len(rows):
                point = now.point()
                look = probe.ascend(x.index_copy(0, rows, point), rows, log_gap)
                wrong = probe.wrong(look.logits, rows)
                nearest.note(point, rows, wrong)
                now = self._answered(now, point, wrong, look.gradient, threat)
                going = now.round < self.rounds
                if not bool(going.all()):
                    rows, now = rows[going], _Descent(*(part[going] for part in now))
            self._halve(probe, nearest, torch.isfinite(nearest.distance) & (nearest.distance > 0))
            return nearest.result(probe)

    def _halve(self, probe: Probe, nearest: Nearest, which: Tensor) -> None:
        rows = which.nonzero().squeeze(1)
        x, delta = nearest.x[rows], nearest.x_adv[rows] - nearest.x[rows]
        low = torch.zeros_like(x[:, :1, :1, :1])
        high = torch.ones_like(low)
        for _ in range(HALVINGS if len(rows) else 0):
            point = x + (low + high) / 2 * delta
            wrong = probe.wrong(probe.logits(nearest.x.index_copy(0, rows, point), rows), rows)
            nearest.note(point, rows, wrong)
            erred = wrong.reshape(-1, 1, 1, 1)
            low, high = torch.where(erred, low, (low + high) / 2), torch.where(erred, (low + high) / 2, high)

    def _start(self, probe: Probe, nearest: Nearest, generator: SampleGenerator) -> tuple[Tensor, Tensor]:
        """The samples (R,) that are to be attacked and could be started, and where (R, C, H, W)."""
        x, first, (low, high) = nearest.x, generator.counter, nearest.threat.bounds
        everyone = torch.arange(len(x), device=x.device)
        wrong = probe.wrong(probe.logits(x, everyone), everyone)
        nearest.note(x, everyone, wrong)
        start, rows = x.clone(), everyone[~wrong]
        found = torch.zeros_like(wrong)
        for draw in range(self.draws):
            if not len(rows):
                break
            noise = SampleGenerator(generator.seeds[rows], first + 2 * draw).normal(*x.shape[1:], dtype=x.dtype)
            point = (x[rows] + FIRST_NOISE * NOISE_GROWTH**draw * (high - low) * noise).clamp(low, high)
            wrong = probe.wrong(probe.logits(x.index_copy(0, rows, point), rows), rows)
            start[rows], found[rows] = point, wrong
            rows = rows[~wrong]
        generator.counter = first + 2 * self.draws
        rows = found.nonzero().squeeze(1)
        nearest.note(start[rows], rows, torch.ones_like(rows, dtype=torch.bool))
        return rows, start[rows]

    def _answered(self, now: _Descent, point: Tensor, wrong: Tensor, gradient: Tensor, threat: Threat) -> _Descent:
        """After a look at `point`: an error is the new place, and a step is made from it; else the step is halved."""
        image = wrong.reshape(-1, 1, 1, 1)
        moved = (point - now.here).flatten(1).abs().amax(1)
        given_up = ~wrong & (now.halved >= self.backtracks)
        step = now.step + wrong
        # The first look is at the start itself, which is no step.
        ended = given_up | (wrong & ((step > self.steps) | ((moved <= STILL) & (now.step > 0))))
        now = now._replace(
            here=torch.where(image, point, now.here),
            gradient=torch.where(image, gradient, now.gradient),
            round=now.round + ended,
            step=step.masked_fill(ended, 1),
            halved=(now.halved + 1).masked_fill(wrong | ended, 0),
            share=torch.where(wrong, (2 * now.share).clamp(max=1), now.share / 2).masked_fill(ended, 1),
        )
        alpha = (self.penalty * self.penalty_decay ** now.round.double()).to(point.dtype).reshape(-1, 1, 1, 1)
        downhill = _ascent_of_size(now.here - now.x, threat) - alpha * now.gradient
        there = (now.here - self.step_size * downhill).clamp(*threat.bounds)
        return now._replace(there=torch.where(image | ended.reshape(-1, 1, 1, 1), there, now.there))


class _Descent(NamedTuple):
    """Where each sample stands; all tensors (R, ...) of the samples still descending.

    `here` is its last error and `gradient` that of the barrier's logarithm there; the step leads to `there`, of which
    `share` is tried next, after `halved` halvings. `step` counts from 1 in each round, and is 0 before the first look.
    """

    x: Tensor
    here: Tensor
    there: Tensor
    gradient: Tensor
    share: Tensor
    halved: Tensor
    step: Tensor
    round: Tensor

    def point(self) -> Tensor:
        return self.here + self.share.reshape(-1, 1, 1, 1) * (self.there - self.here)


def _begin(x: Tensor, here: Tensor) -> _Descent:
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return _Descent(x, here, here, torch.zeros_like(x), torch.ones_like(x[:, 0, 0, 0]), count, count, count)


def log_gap(logits: Tensor, y: Tensor) -> Tensor:
    """log(max_j p_j - p_y) of the softmax p where y is not predicted; elsewhere the difference of the log p."""
    log_p = logits.log_softmax(1)
    at_y = log_p.gather(1, y[:, None]).squeeze(1)
    top = log_p.scatter(1, y[:, None], -torch.inf).amax(1)
    behind = at_y - top
    error = behind < 0
    gap = top + torch.log(-torch.expm1(torch.where(error, behind, -1.0)))
    return torch.where(error, gap, -behind)


def _ascent_of_size(d: Tensor, threat: Threat) -> Tensor:
    """The gradient of m at d (R, C, H, W)."""
    if isinstance(threat, L2):
        return d
    size = d.flatten(1).abs()
    weight = (TEMPERATURE * size).softmax(1)
    soft = (weight * size).sum(1, keepdim=True)
    return (weight * (1 + TEMPERATURE * (size - soft))).reshape(d.shape) * d.sign()
