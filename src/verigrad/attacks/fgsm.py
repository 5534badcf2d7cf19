"""The fast gradient sign method (Goodfellow et al. 2015, section 4): one full step along the steepest direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """A budget attack of one step: x + eps · steepest(∇ score), then cut to the threat.

    Args:
        score: what is climbed: 'cross_entropy', 'margin' or 'dlr'.
    """

    score: str = "cross_entropy"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise BadInput(f"The 'score' of FGSM must be one of {', '.join(SCORES)}. Got {self.score!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe = Probe(model, y)
            look = probe.ascend(x, torch.arange(len(x), device=x.device), SCORES[self.score])
            return probe.result(threat.project(x + threat.size * threat.steepest(look.gradient), x), x, threat)
