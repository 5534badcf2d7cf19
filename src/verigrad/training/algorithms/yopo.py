"""YOPO-m-n (Zhang et al. 2019, "You only propagate once"): the images climb through the first layer alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.attacks.base import check_batch
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Linf, Threat
from verigrad.training.algorithms.base import State
from verigrad.training.algorithms.first_layer import Cut, FirstLayer, first_layer
from verigrad.training.algorithms.free import check_step_size, check_threat
from verigrad.training.objectives.base import accuracy


@dataclass(frozen=True, kw_only=True)
class YOPO:
    """With the network as g(f₀(x)), m times: p = ∂ℓ/∂f₀ at x + η by a full pass, then n times with this p

        η ← Π(η + step_size · steepest(∇_η ⟨p, f₀(x + η)⟩)).

    One update by the sum of all gradients follows: those of the m full passes, each at the η before its climb, and for
    the weights of f₀ also ∇⟨p, f₀(x + η)⟩ at the η after it, with the p of before.

    That the first layer gets both is the released code's way, whose authors confirm it: the code takes the first one
    out by a line that, since gradients are added in place, does nothing. The paper's algorithm states the sum of the
    gradients after the climb, which needs a pass more; by its maximum principle f₀ would get the second alone. A
    learning rate for one gradient is too large for the sum: divide it by m, as the code does.

    Where f₀ is affine in x (a convolution or linear layer that sees the image itself, or through `Normalised`) and the
    threat is Linf, ∇_η is the same vector in all n steps and projection acts pixel by pixel, so that they are one step
    of n · step_size: one transposed convolution. Elsewhere the steps are taken one by one.

    Where it differs from the code: η starts in ball and valid box, where the code's first pass sees x + η outside the
    box; the code's last forward pass, which only measures an accuracy, is left out; its second optimiser, over the
    first layer, is the one optimiser's part. Under L2 the sign is the threat's steepest direction.

    Parts: "cross_entropy" and "accuracy" on the images of the last full pass.
    Passes: m forwards and m backwards, and besides, in f₀ alone, for each of the m: 1 forward, 1 backward by the
    image, 1 by the weights where it is affine; else n forwards, n backwards by the image, 1 by the weights. Batch norm
    or randomness inside f₀ acts in each of these.

    Args:
        threat: Linf or L2; what x + η may be.
        passes: m, from 1 up; 5 in the paper's main results.
        steps: n, from 1 up; 3 on CIFAR-10, 10 on MNIST in the paper.
        step_size: sigma, in the threat's norm, positive; None means eps / 4, which is 2/255 at the paper's 8/255.
        first: path of the module that ends f₀, as in `named_modules`; "" for the first one with weights.
        collapse: whether the n steps may be taken as one.
    """

    threat: Threat
    passes: int = 5
    steps: int = 3
    step_size: float | None = None
    first: str = ""
    collapse: bool = True

    def __post_init__(self) -> None:
        check_threat(type(self).__name__, self.threat)
        if self.passes < 1 or self.steps < 1:
            raise BadInput(f"'passes' and 'steps' of YOPO must be at least 1. Got {self.passes} and {self.steps}.")
        check_step_size(type(self).__name__, self.step_size)

    def step(self, state: State, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> dict[str, Tensor]:
        check_batch(x, y, self.threat, generator)
        first = first_layer(state.module, x, self.first)
        weights = [weight for weight in state.module.parameters() if weight.requires_grad]
        x_adv = self.threat.sample(x, generator)
        loss, logits = x.new_zeros(()), x
        for number in range(self.passes):
            x_adv = x_adv.detach().requires_grad_()
            with state.alone() if number < self.passes - 1 else nullcontext():
                with first.cut() as cut, state.precision():
                    logits = state.model(x_adv)
                    loss = F.cross_entropy(logits, y)
                loss.backward()
                p = _costate(cut, x_adv)
                before = cut.outputs[0]
                x_adv = self._climbed(state, first, before, p, x_adv, x)
                with state.precision():
                    after = first(x_adv)
                # In one backward pass, so that several processes average both parts, once.
                if after.requires_grad:
                    torch.autograd.backward([before, after], [p, p], inputs=weights)
        state.update()
        return {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)}

    def _climbed(self, state: State, first: FirstLayer, output: Tensor, p: Tensor, x_adv: Tensor, x: Tensor) -> Tensor:
        """The images after n steps; `output` is f₀(x_adv), with its graph."""
        step_size = self.threat.size / 4 if self.step_size is None else self.step_size
        at_once = self.collapse and first.affine and isinstance(self.threat, Linf)
        for number in range(1 if at_once else self.steps):
            if number:
                x_adv = x_adv.requires_grad_()
                with state.precision():
                    output = first(x_adv)
            # The first graph is asked again, for the weights.
            (gradient,) = torch.autograd.grad(output, x_adv, p, retain_graph=number == 0)
            length = step_size * self.steps if at_once else step_size
            x_adv = self.threat.project(x_adv.detach() + length * self.threat.steepest(gradient), x)
        return x_adv


def _costate(cut: Cut, x_adv: Tensor) -> Tensor:
    """p, once it is certain that the loss is a function of f₀(x) alone."""
    if len(cut.leaves) != 1:
        raise BadInput(
            f"The first layer of YOPO must be used once in a pass. It was used {len(cut.leaves)} times. "
            "Name another module as 'first'."
        )
    p = cut.leaves[0].grad
    if x_adv.grad is not None or p is None:
        raise BadInput(
            "The loss must depend on the image through YOPO's first layer alone. Name as 'first' a module through "
            "which all of it goes."
        )
    return p
