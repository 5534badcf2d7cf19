"""The same weights under another solver, control or gradient mode."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.carrying import Carrying
from verigrad.models.ode_block import ODEBlock
from verigrad.solvers import Gradient, Method
from verigrad.solvers.carrier import Choices, Chosen
from verigrad.solvers.torchdiffeqs import torchdiffeqs


def ode_blocks(model: nn.Module) -> list[ODEBlock]:
    """All ODE blocks of a model, in the order of `model.modules()`."""
    return [part for part in model.modules() if isinstance(part, ODEBlock)]


def twin(
    model: nn.Module,
    *,
    method: Method | None = None,
    control: Chosen | None = None,
    gradient: Gradient | None = None,
) -> nn.Module:
    """A model with the very weights of `model` (the same tensors, not copies) whose ODE blocks are solved differently.

    What is None stays as it is in each block. The model itself is untouched. Weights that change later change in both.
    A model without ODE blocks that calls torchdiffeq is carried (`carrying.py`); of a model with both, only the blocks
    change.

    Args:
        control: a control, or a function from the control that a block or a call has to another.

    Raises:
        BadInput: the model has no ODE block, and torchdiffeq is not loaded. If it is loaded and the model does not
            call it, the twin's first forward pass raises.
    """
    if isinstance(model, Carrying):
        return Carrying(model.module, Choices(control=control, gradient=gradient, method=method).within(model.choices))
    if not ode_blocks(model):
        if torchdiffeqs():
            return Carrying(model, Choices(control=control, gradient=gradient, method=method, raises=False))
        raise BadInput(
            f"A twin differs in how ODE blocks are solved, and {type(model).__name__} has none. "
            "Solver interventions do not apply to it."
        )
    other = copy.deepcopy(model, _tensors(model))
    for block in ode_blocks(other):
        chosen = control(block.solver.control) if callable(control) else control
        changes: dict[str, Any] = {"method": method, "control": chosen, "gradient": gradient}
        block.solver = replace(block.solver, **{name: value for name, value in changes.items() if value is not None})
        block.watch = None
    return other


def _tensors(model: nn.Module) -> dict[int, Any]:
    """A memo for `copy.deepcopy` in which every tensor of the model stands for itself."""
    found: dict[int, Any] = {}
    for part in model.modules():
        held = [*part.parameters(recurse=False), *part.buffers(recurse=False), *vars(part).values()]
        found.update((id(tensor), tensor) for tensor in held if isinstance(tensor, Tensor))
    return found
