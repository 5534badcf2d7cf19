"""Carlini and Wagner's Linf attack in their own form (2017, section VI.C, and their code li_attack.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.adam import Adam
from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.attacks.tanh_space import TanhSpace
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Linf, Threat

# The authors' code: a tau below one grey level ends the search, and a round is won when its loss is this share of c.
LAST_TAU = 1 / 256
WON = 1e-4


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerLinf2017:
    """Looks for the nearest error in Linf: with x(w) of `TanhSpace`, each round has a tau and minimises by Adam

        Σ_i max(|x(w) - x|_i - tau, 0) + c · max(Z_y - max_{j≠y} Z_j, 0).

    A round is won at the first error with a loss below 1e-4 · c. The next one starts there with a fresh Adam and
    tau ← tau_decay · min(tau, the largest change), until tau ≤ 1/256. After every `steps` steps without that c is
    multiplied by `constant_factor`, while w and Adam go on; a c above `largest_constant` ends the search. c stays for
    the next rounds. The nearest error of all iterates is returned if it lies inside the threat, and x else; how far the
    threat allows to go does not change the search. A sample that is misclassified at once takes one pass. Nothing is
    drawn.

    `CarliniWagnerLinf` is another one: the SONet paper's code never changes c and gives up at the first lost round.

    Deviations: samples run side by side, each with its own tau, c and Adam; the first look is at x itself and not at
    x(w); the nearest error of all looks counts, where the code returns the end of the last round won; 100 steps a
    constant, where the code takes 1000, and a first c of 0.001, where it takes 0.00001.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch; samples that are done rest at their nearest error.

    Args:
        steps: Adam steps with one c, from 1 up.
        step_size: Adam's, in w.
        constant: the first c.
        largest_constant: the last c, at least `constant`.
        constant_factor: above 1.
        tau_decay: inside (0, 1).
    """

    steps: int = 100
    step_size: float = 0.005
    constant: float = 0.001
    largest_constant: float = 20.0
    constant_factor: float = 2.0
    tau_decay: float = 0.9

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.steps < 1:
            raise BadInput(f"The 'steps' of {name} must be at least 1. Got {self.steps}.")
        for field in ("step_size", "constant"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {field!r} of {name} must be a positive number. Got {value}.")
        if not (math.isfinite(self.largest_constant) and self.largest_constant >= self.constant):
            raise BadInput(f"The 'largest_constant' of {name} must be finite and at least 'constant'. "
                           f"Got {self.largest_constant}.")  # fmt: skip
        if not (math.isfinite(self.constant_factor) and self.constant_factor > 1):
            raise BadInput(f"The 'constant_factor' of {name} must be above 1. Got {self.constant_factor}.")
        if not 0 < self.tau_decay < 1:
            raise BadInput(f"The 'tau_decay' of {name} must be inside (0, 1). Got {self.tau_decay}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf):
            raise BadInput(f"CarliniWagnerLinf2017 is defined for Linf. Got {threat}. Use 'cw-l2', 'cw-l0' or 'fmn'.")
        with left_as_found(model):
            probe, nearest, space = Probe(model, y), Nearest(x, threat), TanhSpace(bounds=threat.bounds)
            rows = torch.arange(len(x), device=x.device)
            now = _begin(x, self.constant, space)
            first = True
            while len(rows):
                here = now.here if len(rows) == len(x) else nearest.x_adv.index_copy(0, rows, now.here)
                look = probe.ascend(here, rows, margin)
                wrong = probe.wrong(look.logits, rows)
                nearest.note(now.here, rows, wrong)
                now = self._moved(now, look, wrong, space)
                done = (now.tau <= LAST_TAU) | (now.constant > self.largest_constant)
                if first and not probe.coupled:
                    done |= wrong
                first = False
                if bool(done.any()):
                    rows, now = rows[~done], now.only(~done)
            return nearest.result(probe)

    def _moved(self, now: _Round, look: Ascent, wrong: Tensor, space: TanhSpace) -> _Round:
        """One Adam step of each, or the start of the next round where one is won."""
        gap = now.here - now.x
        excess = gap.abs() - _column(now.tau)
        loss = excess.clamp(min=0).flatten(1).sum(1) + now.constant * (-look.value).clamp(min=0)
        won = wrong & (loss < WON * now.constant)
        hinge = _column(torch.where(look.value < 0, now.constant, 0.0)) * look.gradient
        adam = now.adam.seen((gap.sign() * (excess > 0) - hinge) * space.slope(now.here))
        tau = self.tau_decay * torch.minimum(now.tau, gap.abs().flatten(1).amax(1))
        w = torch.where(_column(won), space.inverse(now.here), now.w - self.step_size * adam.direction())
        step = (now.step + 1).masked_fill(won, 0)
        lost = step >= self.steps
        return now._replace(
            w=w,
            here=space.image(w),
            adam=adam.restarted(won),
            step=step.masked_fill(lost, 0),
            tau=torch.where(won, tau, now.tau),
            constant=torch.where(lost, self.constant_factor * now.constant, now.constant),
        )


class _Round(NamedTuple):
    """Where each sample stands; all tensors (R, ...) of the samples not done. `step` counts those with this c."""

    x: Tensor
    w: Tensor
    here: Tensor
    adam: Adam
    step: Tensor
    tau: Tensor
    constant: Tensor

    def only(self, which: Tensor) -> _Round:
        rest = {name: part[which] for name, part in self._asdict().items() if name != "adam"}
        return _Round(adam=self.adam.only(which), **rest)


def _begin(x: Tensor, constant: float, space: TanhSpace) -> _Round:
    ones = torch.ones_like(x[:, 0, 0, 0])
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return _Round(x, space.inverse(x), x, Adam.start(x), count, ones, ones * constant)


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
