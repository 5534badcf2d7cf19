"""What an audit knows of a model that is written on torchdiffeq, found by running it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.classifier import device_of, left_as_found
from verigrad.core.seeds import derive_seed
from verigrad.evaluation.look import fixed_draws
from verigrad.models.carrying import foreign_solves
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import Control, Direct, Fixed, Replay
from verigrad.solvers.carrier import Carried

AGREES = 0.05
"""How far, relative to the logits, a carried forward pass may be off: in float32 rounding can tip one more step."""


class Foreign(NamedTuple):
    """The calls of torchdiffeq that a model makes in a forward pass, in order.

    refused: why they cannot be carried, as the end of a sentence; then `solves` is empty, and no cause that lies in a
        solver is looked for.
    """

    solves: tuple[Carried, ...] = ()
    refused: str = ""

    def texts(self) -> list[str]:
        """The solver of each call, as one line."""
        if self.refused:
            return [f"torchdiffeq, not carried: {self.refused}"]
        return [f"{one.call}: {one.method}, {_told(one.control)}, {one.gradient!r}" for one in self.solves]


NOT_FOREIGN = Foreign()


def recognise(model: nn.Module, x: Tensor, *, seed: int) -> Foreign:
    """The model's calls of torchdiffeq on x (B, C, H, W), if the twins of an audit can be made of them.

    That is so if the carried forward pass agrees with the model's own, and the frozen twin has a gradient. Nothing is
    looked for in a model with ODE blocks of ours. The model is left as it was found.
    """
    if ode_blocks(model):
        return NOT_FOREIGN
    device, draws = device_of(model), derive_seed("recognise", seed)
    x = x.clone().to(device)
    try:
        with fixed_draws(draws, device):
            solves = foreign_solves(model, x)
        if not solves:
            return NOT_FOREIGN
        with left_as_found(model), torch.no_grad(), fixed_draws(draws, device):
            own = model(x)
        with left_as_found(model), torch.enable_grad(), fixed_draws(draws, device):
            at = x.requires_grad_(True)
            frozen = twin(model, gradient=Direct(grid="frozen"))(at)
            if frozen.requires_grad:
                torch.autograd.grad(frozen.sum(), at, allow_unused=True)
    except (Exception, SystemExit) as fault:  # a model that cannot be carried is audited all the same
        why = "it ended the program" if isinstance(fault, SystemExit) else str(fault).strip().partition("\n")[0]
        return Foreign(refused=why)
    change = float((frozen.detach() - own).norm() / own.norm().clamp(min=1e-30))
    if not change <= AGREES:
        return Foreign(refused=f"Carried onto our solvers its logits change by {change:.1%}.")
    return Foreign(tuple(solves))


def _told(control: Control) -> str:
    """A control without its tensors."""
    if isinstance(control, Replay):
        return f"{len(control.starts)} given steps"
    return "one step" if control == Fixed(steps=1) else repr(control)
