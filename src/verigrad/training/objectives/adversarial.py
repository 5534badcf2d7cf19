"""Adversarial training (Madry et al. 2018, Eq. 2.1): cross-entropy on images perturbed against the present weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.attacks.pgd import PGD
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.training.objectives.base import Loss, accuracy


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """min_θ mean_i max over the threat of cross-entropy, where the inner maximum is an attack's last iterate.

    The attack sees the model in eval mode with its weights frozen, the loss in training mode. (Madry's code attacks in
    training mode; with batch norm the two differ.) Parts: "cross_entropy" and "accuracy", both on the perturbed images.

    Args:
        threat: what the attack may do.
        attack: a budget attack. By default PGD of 7 steps of 2.5 · eps / 7 from a random start, every step taken.
    """

    threat: Threat
    attack: Attack = PGD(steps=7, keep="last")  # noqa: RUF009 (frozen)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        x_adv = self.attack(model, x, y, self.threat, generator=generator).x_adv
        logits = model(x_adv)
        loss = F.cross_entropy(logits, y)
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)})
