"""Adversarial training (Madry et al. 2018, Eq. 2.1): cross-entropy on images perturbed against the present weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.attacks.base import Attack, Steered
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.training.objectives.base import Loss, accuracy, check_smoothing


class _Unjudged(nn.Module):
    """Stands where an attack judges what it has made, which training does not ask for. One logit, always zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 1)


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """min_θ mean_i max over the threat of cross-entropy, where the inner maximum is an attack's last iterate.

    The attack sees the model in eval mode with its weights frozen and differentiates by the images alone; the loss sees
    it in training mode. (Madry's code attacks in training mode; with batch norm the two differ.) Parts: "cross_entropy"
    and "accuracy", both on the perturbed images.

    Passes: with PGD of k steps and one start, k + 1 forwards and k + 1 backwards, k of these by the images alone; FGSM
    is k = 1. Their last pass, in which an attack judges its result, is left out; other attacks make it.

    Args:
        threat: what the attack may do; any that the attack takes.
        attack: a budget attack. By default PGD of 7 steps of 2.5 · eps / 7 from a random start, every step taken.
        smoothing: of the labels of the loss, as in `natural.py`; the attack climbs its own score (Pang et al. 2021).
    """

    threat: Threat
    attack: Attack = PGD(steps=7, keep="last")  # noqa: RUF009 (frozen)
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_smoothing(type(self).__name__, self.smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        attacked = Steered(_Unjudged(), model, same_forward=True) if self._only_judges_at_the_end() else model
        x_adv = self.attack(attacked, x, y, self.threat, generator=generator).x_adv
        logits = model(x_adv)
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)})

    def _only_judges_at_the_end(self) -> bool:
        """Whether the attack's way does not depend on passes other than those that it differentiates."""
        one_start = isinstance(self.attack, PGD) and self.attack.restarts == 1
        return one_start or isinstance(self.attack, FGSM)
