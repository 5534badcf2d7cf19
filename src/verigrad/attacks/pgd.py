"""Projected gradient descent (Madry et al. 2018, Eq. 3): x ← Π(x + step_size · steepest(∇ score))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class PGD:
    """A budget attack for any threat.

    Args:
        steps: gradient steps of each restart, from 1 up.
        step_size: length of one step in the threat's norm; None means 2.5 · eps / steps (Madry et al. 2018).
        score: what is climbed: 'cross_entropy', 'margin' or 'dlr'.
        restarts: how many starts; every start after the first is random, and only unbroken samples get one.
        random_start: whether the first start is random inside the threat.
        keep: 'best' takes the first iterate that errs and stops there; 'last' moves every sample through every step
            and judges the last iterate, as most papers report it.
    """

    steps: int = 20
    step_size: float | None = None
    score: str = "cross_entropy"
    restarts: int = 1
    random_start: bool = True
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise BadInput(f"'steps' and 'restarts' of PGD must be at least 1. Got {self.steps} and {self.restarts}.")
        if self.step_size is not None and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise BadInput(f"The 'step_size' of PGD must be a positive number. Got {self.step_size}.")
        if self.score not in SCORES:
            raise BadInput(f"The 'score' of PGD must be one of {', '.join(SCORES)}. Got {self.score!r}.")
        if self.keep not in ("best", "last"):
            raise BadInput(f"'keep' of PGD must be best or last. Got {self.keep!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe = Probe(model, y)
            x_adv = x.clone()
            active = torch.ones(len(x), dtype=torch.bool, device=x.device)
            for restart in range(self.restarts):
                if restart > 0:
                    # The last iterate of a start is an attempt too; only `result` looks at the very last one.
                    rows = active.nonzero().squeeze(1)
                    active = active.index_copy(0, rows, ~probe.wrong(probe.logits(x_adv, rows), rows))
                if restart > 0 or self.random_start:
                    start = threat.sample(x, generator)
                    x_adv = torch.where(active.reshape(-1, 1, 1, 1), start, x_adv)
                x_adv, active = self._climb(probe, x_adv, x, threat, active)
                if not bool(active.any()):
                    break
            return probe.result(x_adv, x, threat)

    def _climb(self, probe: Probe, x_adv: Tensor, x: Tensor, threat: Threat, active: Tensor) -> tuple[Tensor, Tensor]:
        """One start. Returns the batch and which samples are still unbroken.

        Where predictions depend on batch-mates, a sample that errs only rests: should its batch-mates' moves make it
        right again, it climbs on.
        """
        step_size = 2.5 * threat.size / self.steps if self.step_size is None else self.step_size
        score = SCORES[self.score]
        everyone = torch.arange(len(x), device=x.device)
        for _ in range(self.steps):
            rows = active.nonzero().squeeze(1)
            if not len(rows):
                break
            if probe.coupled and self.keep == "best":
                rows = everyone
            look = probe.ascend(x_adv, rows, score)
            dense = len(rows) == len(x)
            before, origin = (x_adv, x) if dense else (x_adv[rows], x[rows])
            after = threat.project(before + step_size * threat.steepest(look.gradient), origin)
            if self.keep == "best":
                wrong = probe.wrong(look.logits, rows)
                active = active.index_copy(0, rows, ~wrong)
                after = torch.where(wrong.reshape(-1, 1, 1, 1), before, after)
            x_adv = after if dense else x_adv.index_copy(0, rows, after)
        return x_adv, active
