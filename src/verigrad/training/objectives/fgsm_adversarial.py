"""Fast adversarial training (Wong, Rice & Kolter 2020, Algorithm 3): one large step from a random start."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.base import Loss, check_smoothing


@dataclass(frozen=True, kw_only=True)
class FGSMAdversarial:
    """Cross-entropy at Π(x₀ + step_size · sign ∇ℓ(x₀)), x₀ uniform in the ball; Π cuts to ball and valid box.

    Where the released code differs: it attacks in training mode (here: eval mode), its eps and steps are those of
    normalised images, the same in pixels, and its learning rate is cyclic over few epochs, which is the recipe's
    matter. Such training may suddenly lose all robustness against PGD ("catastrophic overfitting"); the paper watches
    for it with PGD on training data. Under other threats than Linf the sign is the threat's own steepest direction.

    Parts: "cross_entropy" and "accuracy", on the perturbed images. Passes: 2 forwards, 2 backwards, one of these by the
    images alone.

    Args:
        threat: what the attack may do.
        step: length of the step in units of the threat's size, positive; 1.25 in the paper (10/255 at eps = 8/255).
        smoothing: of the labels of the loss, as in `natural.py`.
    """

    threat: Threat
    step: float = 1.25
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and self.step > 0):
            raise BadInput(f"The 'step' of FGSMAdversarial must be a positive number. Got {self.step!r}. Try 1.25.")
        check_smoothing(type(self).__name__, self.smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        # A threat of size zero has no step; any length does, since Π takes it back.
        attack = PGD(steps=1, step_size=self.step * self.threat.size or 1.0, keep="last")
        loss = Adversarial(threat=self.threat, attack=attack, smoothing=self.smoothing)
        return loss(model, x, y, generator=generator)
