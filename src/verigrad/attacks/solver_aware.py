"""Attacks built on a twin of the classifier: the same weights under another solver, control, gradient or precision.

The classifier itself judges every iterate; only the gradient comes from the twin. What such an attack finds beyond the
plain one shows what hid the gradient. This file alone, of the attacks, knows about solvers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Attack, AttackResult, Steered
from verigrad.attacks.changes import Change
from verigrad.core.classifier import batch_coupled, left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.models.ode_block import METHODS
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import BatchCoupled, Direct, Fixed, PerSample


@dataclass(frozen=True, kw_only=True)
class OnTwin:
    """`attack`, climbing on the twin that `change` makes and judged by the classifier."""

    attack: Attack
    change: Change

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        with left_as_found(model):
            steered = Steered(model, self.change(model), same_forward=self.change.same_forward)
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
class BatchOfOne:
    """Each sample is solved as if it were alone.

    Blocks under `BatchCoupled` get `PerSample` with the same law, which costs one batched run. A classifier that is
    coupled by anything else is evaluated sample by sample.
    """

    same_forward: ClassVar[bool] = False

    def __call__(self, model: nn.Module) -> nn.Module:
        alone = model
        controls = {block.solver.control for block in ode_blocks(model)}
        if len(controls) == 1 and isinstance(control := next(iter(controls)), BatchCoupled):
            alone = twin(model, control=PerSample(**vars(control)))
        return _OneByOne(alone) if batch_coupled(alone) or alone is model else alone


class _OneByOne(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.module(x[i : i + 1]) for i in range(len(x))]) if len(x) else self.module(x)


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
