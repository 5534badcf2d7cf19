"""Input gradient regularisation (Finlay & Oberman 2021): cross-entropy plus a penalty on its gradient by the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2
from verigrad.training.objectives.base import Loss, accuracy
from verigrad.training.objectives.known_gradient import with_gradients

WAYS = ("finite-differences", "double-backprop", "shared-backward")


@dataclass(frozen=True, kw_only=True)
class GradientPenalty:
    """mean_i [ ℓ_i + λ/2 · n_i² ] (Eq. 8), or mean_i [ ℓ_i + λ · n_i ] unsquared; n_i measures g_i = ∇ℓ(x_i).

    n is ‖g‖₂ under norm="l2", against attacks in L2, and ‖g‖₁ / √N under norm="l1", against Linf, with N = C·H·W: the
    paper's direction sign(g)/√N has length one and so measures that. How n is found, `by`:

    - "finite-differences" (Eq. 9, Algorithm 1): n = |ℓ(x + h·d) - ℓ(x)| / h, d = g/‖g‖₂ or sign(g)/√N, 0 where g is 0,
      held constant. Passes: 2 forwards, 3 backwards, one by the images alone. Its gradient by the weights goes to that
      of double backprop as h → 0 on smooth networks. On ReLU networks it need not: a kink lies within h of x with a
      chance of order h and adds a spike of order 1/h, which double backprop never sees (`docs/math/objectives.md`).
    - "double-backprop": n itself, differentiated exactly. Passes: 1 forward, 2 backwards, the second through the first.
      The reference.
    - "shared-backward": as finite differences, but ℓ(x) in n is held constant too. So one backward gives ∇ℓ by image
      and weights, and one forward and one backward at x + h·d are left: 2 forwards, 2 backwards. The value is the same,
      the gradient by the weights is not: it is that of ℓ(x) plus ℓ(x + h·d) weighted by λ n / h (unsquared: λ/h), and
      grows as 1/h. An estimator of another kind, close to adversarial training with weights: it needs a smaller λ.

    Choices: λ/2 as in Eq. (8) and the authors' code, where Algorithm 1 has λ; the unsquared form is ℓ + δ‖g‖, which the
    paper's section 3 prints with 1/δ; g is of the sum of the losses, never of their mean, which would shrink λ by B²;
    the absolute value matters to the unsquared form alone, which else would pay for a falling loss. As in the authors'
    code both forwards are in training mode and both move batch norm's running statistics, and x + h·d is not cut to
    [0, 1]. Layers that draw at random (dropout) draw anew at x + h·d; divided by h that swamps n: use double backprop.

    Parts: "cross_entropy", "penalty" (as added), "gradient_norm" (mean n) and "accuracy".

    Args:
        norm: of the gradient, "l2" or "l1".
        strength: λ, from 0 up; 0.1 and 1 in the paper.
        h: length of the finite difference in L2 and pixel units of [0, 1], positive; 0.01 in the paper, 0.1 for its
            row of l1 with λ = 1. A pixel moves by h/√N under "l1". Not used by double backprop.
        squared: whether n is squared.
        by: how n is found.
    """

    norm: Literal["l2", "l1"] = "l2"
    strength: float = 1.0
    h: float = 0.01
    squared: bool = True
    by: Literal["finite-differences", "double-backprop", "shared-backward"] = "finite-differences"

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "l1"):
            raise BadInput(f"The 'norm' of GradientPenalty must be l2 or l1. Got {self.norm!r}. Against Linf take l1.")
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise BadInput(
                f"The 'strength' of GradientPenalty must be a finite number in [0, inf). Got {self.strength!r}. Try 1."
            )
        if not (math.isfinite(self.h) and self.h > 0):
            raise BadInput(f"The 'h' of GradientPenalty must be a positive number. Got {self.h!r}. Try 0.01.")
        if self.by not in WAYS:
            raise BadInput(f"'by' of GradientPenalty must be one of {', '.join(WAYS)}. Got {self.by!r}.")

    @property
    def needs_float32(self) -> bool:
        """Whether lower precision would drown the finite difference in rounding; at h = 0.1 bfloat16 still will do."""
        return self.by != "double-backprop" and self.h < 0.1

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        del generator  # nothing is drawn
        at = x.detach().requires_grad_(True)
        logits = model(at)
        losses = F.cross_entropy(logits, y, reduction="none")
        if self.by == "double-backprop":
            (g,) = torch.autograd.grad(losses.sum(), at, create_graph=True, materialize_grads=True)
            natural, norms = losses.mean(), self._exact(g)
        elif self.by == "finite-differences":
            (g,) = torch.autograd.grad(losses.sum(), at, retain_graph=True, materialize_grads=True)
            natural, norms = losses.mean(), self._difference(model, x, y, g, losses)
        else:
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            g, *by_weights = torch.autograd.grad(losses.sum(), [at, *weights], materialize_grads=True)
            losses = losses.detach()
            natural = with_gradients(losses.mean(), weights, [each / len(x) for each in by_weights])
            norms = self._difference(model, x, y, g, losses)
        penalty = self.strength * (norms.square().mean() / 2 if self.squared else norms.mean())
        parts = {
            "cross_entropy": natural.detach(),
            "penalty": penalty.detach(),
            "gradient_norm": norms.detach().mean(),
            "accuracy": accuracy(logits, y),
        }
        return Loss(natural + penalty, parts)

    def _exact(self, g: Tensor) -> Tensor:
        """(B,) n from the gradient (B, C, H, W), with its graph."""
        g = g.flatten(1)
        # vector_norm has derivative zero at zero, where others have NaN.
        return torch.linalg.vector_norm(g, dim=1) if self.norm == "l2" else g.abs().sum(1) / math.sqrt(g.shape[1])

    def _difference(self, model: nn.Module, x: Tensor, y: Tensor, g: Tensor, losses: Tensor) -> Tensor:
        """(B,) n by Eq. (9), from the losses (B,) at x."""
        d = L2(eps=1.0).steepest(g) if self.norm == "l2" else g.sign() / math.sqrt(math.prod(g.shape[1:]))
        return (F.cross_entropy(model(x + self.h * d), y, reduction="none") - losses).abs() / self.h
