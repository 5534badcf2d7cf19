"""Attacks built on a twin of the classifier: the same weights under another solver, control, gradient or precision.

The classifier itself judges every iterate; only the gradient comes from the twin. What such an attack finds beyond the
plain one shows what hid the gradient. This file alone, of the attacks, knows about solvers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Attack, AttackResult, Steered
from verigrad.attacks.changes import Change
from verigrad.core.classifier import batch_coupled, left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.models.carrying import Carrying
from verigrad.models.ode_block import METHODS
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import BatchCoupled, Control, Direct, Fixed, PerSample
from verigrad.solvers.torchdiffeqs import torchdiffeqs


@dataclass(frozen=True, kw_only=True)
class OnTwin:
    """`attack`, climbing on the twin that `change` makes and judged by the classifier."""

    attack: Attack
    change: Change

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        with left_as_found(model):
            climb = self.change(model)
            # A carried forward pass is torchdiffeq's own up to rounding only, so the model is asked for its logits.
            same = self.change.same_forward and not isinstance(climb, Carrying)
            steered = Steered(model, climb, same_forward=same, near=getattr(self.change, "near", False))
            return self.attack(steered, x, y, threat, generator=generator)


@dataclass(frozen=True, kw_only=True)
class FrozenGrid:
    """Step sizes are constants of the backward pass; the forward pass is the same."""

    same_forward: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return twin(model, gradient=Direct(grid="frozen"))


@dataclass(frozen=True, kw_only=True)
class InitialStepOnly:
    """Of the grid only the rule for the first step is differentiated, as torchdiffeq does since 0.2.0."""

    same_forward: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return twin(model, gradient=Direct(grid="first"))


@dataclass(frozen=True, kw_only=True)
class WholeGrid:
    """The control is differentiated with the states: every change of the step size, as torchdiffeq did up to 0.1.1."""

    same_forward: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return twin(model, gradient=Direct(grid="all"))


@dataclass(frozen=True, kw_only=True)
class BatchOfOne:
    """Each sample is solved as if it were alone.

    Blocks under `BatchCoupled`, and calls of torchdiffeq, get `PerSample` with the same law, which costs one batched
    run. A classifier that is coupled by anything else is evaluated sample by sample.
    """

    same_forward: ClassVar[bool] = False

    def __call__(self, model: nn.Module) -> nn.Module:
        blocks = ode_blocks(model)
        if not blocks and torchdiffeqs():
            return _Apart(model, twin(model, control=_per_sample))
        if not any(isinstance(block.solver.control, BatchCoupled) for block in blocks):
            return _OneByOne(model)
        alone = twin(model, control=_per_sample)
        return _OneByOne(alone) if batch_coupled(alone) else alone


def _per_sample(own: Control) -> Control:
    return PerSample(**vars(own)) if isinstance(own, BatchCoupled) else own


class _OneByOne(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.module(x[i : i + 1]) for i in range(len(x))]) if len(x) else self.module(x)


class _Apart(nn.Module):
    """`together`, one run of the batch in which each sample has its own steps, if that is what `module` gives alone.

    Whether it is is asked once, on the first two samples: a field may take only one time for all, a state may not be
    batch first, and something else may couple the batch. If it is not, each sample is run by itself.
    """

    def __init__(self, module: nn.Module, together: nn.Module) -> None:
        super().__init__()
        self.alone = _OneByOne(module)
        self.together = together
        self.agree: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:
            return self.alone(x)
        if self.agree is None:
            self.agree = self._agree(x[:2].detach())
        return self.together(x) if self.agree else self.alone(x)

    def _agree(self, x: Tensor) -> bool:
        try:
            looks = [_logits_and_gradient(one, x) for one in (self.together, self.alone)]
        except Exception:  # whatever somebody's field raises when it is shown a time for each sample
            return False
        return all(bool((a - b).norm() <= AGREES * b.norm()) for a, b in zip(*looks, strict=True))


AGREES = 1e-2
"""Relative, of logits and of gradient: far above rounding, and a tenth of the loosest tolerance in use (0.1)."""


def _logits_and_gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the gradient (B, C, H, W) of the sum of every logit times its class number, from one up."""
    with torch.enable_grad():
        at = x.clone().requires_grad_(True)
        logits = model(at)
        value = (logits * torch.arange(1, logits.shape[1] + 1).to(logits)).sum()
        gradient = torch.autograd.grad(value, at)[0] if value.requires_grad else torch.zeros_like(x)
    return logits.detach(), gradient


@dataclass(frozen=True, kw_only=True)
class FixedSteps:
    """Every ODE block under `steps` equal steps of one method, by its name in `models.ode_block.METHODS`."""

    method: str = "rk4"
    steps: int = 4
    same_forward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.steps < 1:
            raise BadInput(
                f"FixedSteps needs a method of {', '.join(METHODS)} and steps >= 1. Got {self.method!r}, {self.steps}."
            )

    def __call__(self, model: nn.Module) -> nn.Module:
        return twin(model, method=METHODS[self.method], control=Fixed(steps=self.steps), gradient=Direct(grid="frozen"))


@dataclass(frozen=True, kw_only=True)
class OtherTolerance:
    """Every ODE block, or call of torchdiffeq, at another tolerance: a rung of a ladder towards the true flow.

    Only those that choose their steps by the error have one; the grid is frozen in the backward pass.

    Args:
        tol: rtol and atol, positive.
    """

    tol: float
    same_forward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tol) and self.tol > 0):
            raise BadInput(f"The 'tol' of OtherTolerance must be a positive number. Got {self.tol!r}.")

    def __call__(self, model: nn.Module) -> nn.Module:
        return twin(model, control=self._control, gradient=Direct(grid="frozen"))

    def _control(self, own: Control) -> Control:
        return replace(own, rtol=self.tol, atol=self.tol) if isinstance(own, BatchCoupled | PerSample) else own
