"""Free adversarial training (Shafahi et al. 2019, Algorithm 1): one backward pass moves the weights and the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.attacks.base import check_batch
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L0, Threat
from verigrad.training.algorithms.base import State
from verigrad.training.objectives.base import accuracy

MEMORY = "perturbation"


@dataclass(frozen=True, kw_only=True)
class Free:
    """Each batch is replayed m times; a replay's one backward pass gives ∇_θ and ∇_x of the same loss:

        δ ← Π(δ + step_size · steepest(∇_x ℓ(x + δ, y; θ))),   then θ is updated by ∇_θ ℓ(x + δ_before, y; θ).

    δ is kept from batch to batch: the next batch begins with the perturbation of the last, image for place, and so does
    each process with its own. It begins at zero; a shorter batch uses and moves its first places. Nothing is drawn.
    Both gradients are those of the network in training mode, as in the released code.

    Where it differs from that code. δ is projected onto the valid box of the image that it meets, as in the version of
    Wong et al. 2020; the code cuts x + δ alone, so that there ∇_x is zero at cut pixels and δ stays outside the box. A
    tie of sign is no step in both. Under L2 the sign is the threat's steepest direction, which the paper has not.

    A schedule counts batches, each of m updates: for as many updates as a natural training of E epochs take E / m.

    Parts: "cross_entropy" and "accuracy" on the perturbed images of the last replay, before its update.
    Passes: m forwards, m backwards, m updates a batch.

    Args:
        threat: Linf or L2; what x + δ may be.
        replays: m, from 1 up; 8 on CIFAR-10 and 4 on ImageNet in the paper.
        step_size: in the threat's norm, positive; None means eps, as in the paper.
    """

    threat: Threat
    replays: int = 8
    step_size: float | None = None

    def __post_init__(self) -> None:
        check_threat(type(self).__name__, self.threat)
        if self.replays < 1:
            raise BadInput(f"The 'replays' of Free must be at least 1. Got {self.replays}. The paper has 8.")
        check_step_size(type(self).__name__, self.step_size)

    def step(self, state: State, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> dict[str, Tensor]:
        check_batch(x, y, self.threat, generator)
        step_size = self.threat.size if self.step_size is None else self.step_size
        kept = state.memory.get(MEMORY, x[:0]).to(x)
        if len(kept) < len(x):
            kept = torch.cat([kept, torch.zeros_like(x[len(kept) :])])
        x_adv = self.threat.project(x + kept[: len(x)], x)
        loss, logits = x.new_zeros(()), x
        for _ in range(self.replays):
            x_adv = x_adv.detach().requires_grad_()
            with state.precision():
                logits = state.model(x_adv)
                loss = F.cross_entropy(logits, y)
            # Not `autograd.grad`: several processes average what goes into the `.grad` of weights.
            loss.backward()
            assert x_adv.grad is not None
            uphill = self.threat.steepest(x_adv.grad)
            x_adv = self.threat.project(x_adv.detach() + step_size * uphill, x)
            state.update()
        state.memory[MEMORY] = torch.cat([x_adv - x, kept[len(x) :]])
        return {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)}


def check_threat(name: str, threat: Threat) -> None:
    """Refuses L0, whose steps have no length: BadInput."""
    if isinstance(threat, L0):
        raise BadInput(f"The 'threat' of {name} must be linf or l2. Got {threat}. Try linf(eps=8/255).")


def check_step_size(name: str, step_size: float | None) -> None:
    """Refuses all but None and positive numbers: BadInput."""
    if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
        raise BadInput(f"The 'step_size' of {name} must be a positive number or none. Got {step_size!r}.")
