"""TRADES (Zhang et al. 2019): natural cross-entropy and the divergence between clean and perturbed predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.attacks.base import Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Linf, Threat
from verigrad.training.objectives.base import Loss, accuracy, check_smoothing

# The released code's Linf step 0.007 at eps 0.031 and 10 steps; its L2 step is 2 · eps / steps.
LINF_STEPS_LENGTH = 10 * 0.007 / 0.031
OTHER_STEPS_LENGTH = 2.0


@dataclass(frozen=True, kw_only=True)
class TRADES:
    """mean_i [ cross-entropy(x_i) + beta · KL( p(x_i) ‖ p(x'_i) ) ], beta = 1/λ of Eq. (5).

    x' maximises the same KL over the threat: from x + start · normal noise, `steps` of
    x' ← Π(x' + step_size · steepest(∇ KL)), Π onto ball and box. The attack sees the model in eval mode, the loss in
    training mode, and the loss is differentiated through both sides of the KL, all as in the released code.

    Where it differs from that code, without changing the mathematics: p(x) is evaluated once for the whole attack and
    once for the loss, where the code evaluates it at every step and twice in the loss; and the KL is computed from the
    logarithms of both sides, so that a p that underflows to zero gives no NaN. Two things do change: batch norm's
    running statistics move twice a step, by x and x', not three times (x, x', x); and random layers such as dropout are
    drawn once for x. The code's L2 attack draws a new direction where the gradient is zero, here it rests; and its
    projection there is onto the ball, then the box, here onto their intersection.

    Parts: "cross_entropy", "accuracy" (both natural), "divergence" (mean KL) and "accuracy_perturbed".
    Passes: steps + 3 forwards, steps + 2 backwards, `steps` of these by the images alone.

    Args:
        threat: what x' may be.
        beta: weight of the divergence, from 0 up; 1 and 6 in the paper's tables.
        steps: of the attack, from 1 up.
        step_size: in the threat's norm. None: 10 · 0.007/0.031 · eps / steps for Linf, which is 0.007 at the paper's
            eps = 0.031 and 10 steps; 2 · eps / steps for others, which is the code's for L2.
        start: standard deviation of the noise that x' starts with, in pixel units, positive: at x itself the KL has no
            gradient. The start is not cut to the threat, as in the code; x' is, by its first step.
        smoothing: of the labels of the cross-entropy, as in `natural.py`.
    """

    threat: Threat
    beta: float = 6.0
    steps: int = 10
    step_size: float | None = None
    start: float = 0.001
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise BadInput(f"The 'beta' of TRADES must be a finite number in [0, inf). Got {self.beta!r}. Try 6.")
        if self.steps < 1:
            raise BadInput(f"The 'steps' of TRADES must be at least 1. Got {self.steps}.")
        if self.step_size is not None and not (math.isfinite(self.step_size) and self.step_size > 0):
            raise BadInput(f"The 'step_size' of TRADES must be a positive number or none. Got {self.step_size!r}.")
        if not (math.isfinite(self.start) and self.start > 0):
            raise BadInput(f"The 'start' of TRADES must be a positive number. Got {self.start!r}. Try 0.001.")
        check_smoothing(type(self).__name__, self.smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        x_adv = self.perturbed(model, x, y, generator=generator)
        logits, logits_adv = model(x), model(x_adv)
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        kl = divergence(logits.log_softmax(1), logits_adv.log_softmax(1)).mean()
        parts = {
            "cross_entropy": loss.detach(),
            "divergence": kl.detach(),
            "accuracy": accuracy(logits, y),
            "accuracy_perturbed": accuracy(logits_adv, y),
        }
        return Loss(loss + self.beta * kl, parts)

    def perturbed(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Tensor:
        """x' (B, C, H, W), inside the threat. The labels are only checked: the divergence does not ask for them.

        Raises:
            BadInput: a batch that no attack can be run on.
        """
        check_batch(x, y, self.threat, generator)
        everyone = torch.arange(len(x), device=x.device)
        length = LINF_STEPS_LENGTH if isinstance(self.threat, Linf) else OTHER_STEPS_LENGTH
        step_size = length * self.threat.size / self.steps if self.step_size is None else self.step_size
        x_adv = x + self.start * generator.normal(*x.shape[1:], dtype=x.dtype)
        with left_as_found(model):
            probe = Probe(model, y)
            natural = probe.logits(x, everyone).log_softmax(1)

            def score(logits: Tensor, labels: Tensor) -> Tensor:
                del labels
                return divergence(natural, logits.log_softmax(1))

            for _ in range(self.steps):
                uphill = self.threat.steepest(probe.ascend(x_adv, everyone, score).gradient)
                x_adv = self.threat.project(x_adv + step_size * uphill, x)
        return x_adv


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(B,) KL(p ‖ q) = Σ_k p_k (log p_k - log q_k) of log-probabilities (B, K); finite where they are."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
