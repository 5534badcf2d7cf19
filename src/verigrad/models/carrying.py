"""Models written on torchdiffeq, by anybody: a twin of such a model carries its calls onto our solvers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.solvers.carrier import Carried, Choices
from verigrad.solvers.foreign import carried_everywhere


class Carrying(nn.Module):
    """`module` itself, with its very weights, whose calls of torchdiffeq are solved here in each forward pass.

    The calls are carried for the length of the forward pass, in its thread; what it leaves behind is differentiated at
    any later time. A step that the backward pass makes anew (`torch.utils.checkpoint` around a call, or a field that
    calls torchdiffeq itself under `Adjoint`) is torchdiffeq's own again. A sample that is not solved comes out as NaN.

    The logits are those of `module` up to rounding, where nothing but the gradient is chosen.
    """

    def __init__(self, module: nn.Module, choices: Choices) -> None:
        super().__init__()
        self.module = module
        self.choices = choices

    def forward(self, *inputs: Any) -> Any:
        """What `module` gives.

        Raises:
            BadInput: it calls no torchdiffeq, or asks for what cannot be carried.
        """
        with carried_everywhere(self.choices) as solves:
            output = self.module(*inputs)
        if not solves:
            raise BadInput(
                f"A twin differs in how ODE blocks are solved, and {type(self.module).__name__} has none, nor does it "
                "call torchdiffeq in this thread. Solver interventions do not apply to it."
            )
        return output


def foreign_solves(model: nn.Module, x: Tensor) -> list[Carried]:
    """The calls of torchdiffeq that a forward pass of x (B, C, H, W) makes, in order, as they are when carried.

    There are none if the model makes none, whatever it is written on. The model is left as it was found.

    Raises:
        BadInput: a call that cannot be carried.
    """
    with left_as_found(model), torch.no_grad(), carried_everywhere(Choices()) as solves:
        model(x)
    return solves
