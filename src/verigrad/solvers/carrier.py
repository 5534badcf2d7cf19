"""How one call of torchdiffeq is translated into calls of `solve`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.solvers.called import ADAPTIVE, FIXED, Call, own_adjoint, own_control, parameters, read_call
from verigrad.solvers.control import Control, PerSample, Replay
from verigrad.solvers.gradient import Adjoint, Direct, Gradient, GridGradient
from verigrad.solvers.law import Law
from verigrad.solvers.raising import raise_unsolved
from verigrad.solvers.solution import Grid, Solution, Stats, Status
from verigrad.solvers.solve import Method, solve

Chosen = Control | Callable[[Control], Control]


class Carried(NamedTuple):
    """One carried solve: under which choices it ran, and what it did.

    call: the function that was called, "odeint" or "odeint_adjoint".
    method: the name of the tableau.
    """

    call: str
    method: str
    control: Control
    gradient: Gradient
    grid: Grid
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What takes the place of a call's own choices; None keeps them.

    raises: whether an unsolved sample raises, as in torchdiffeq; else its end state is NaN.
    """

    control: Chosen | None = None
    gradient: Gradient | None = None
    method: Method | None = None
    raises: bool = True

    def within(self, outer: "Choices") -> "Choices":
        """These choices, and where they leave one open that of `outer`."""
        kept = {name: mine for name, mine in vars(self).items() if mine is not None}
        return Choices(**{**vars(outer), **kept})


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """How calls are carried. law, grid: what torchdiffeq of that version follows, and what of it it differentiates."""

    law: Law
    grid: GridGradient
    choices: Choices
    note: Callable[[Carried], None]

    def __call__(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the call of that name gives back. arguments: all of its parameters, defaults included.

        Raises BadInput for what cannot be carried.
        """
        call = read_call(name, arguments)
        gradient = self._gradient(call)
        method = self.choices.method or ADAPTIVE.get(call.method) or FIXED.get(call.method)
        if method is None:
            raise BadInput(
                f"The method {call.method!r} of {name} cannot be carried; only {sorted({**ADAPTIVE, **FIXED})} can. "
                "Choose one with carried(..., method=...)."
            )
        ys = [call.y0]
        for start, stop in pairwise(call.times):
            ys.append(self._stretch(call, ys[-1], start, stop, method, gradient))
        if isinstance(call.y0, Tensor):
            return torch.stack(ys)
        return tuple(torch.stack(parts) for parts in zip(*ys, strict=True))

    def _gradient(self, call: Call) -> Gradient:
        chosen = self.choices.gradient
        if chosen is None:
            return Direct(grid=self.grid) if call.name == "odeint" else own_adjoint(call)
        if isinstance(chosen, Adjoint) and chosen.parameters is None:
            return replace(chosen, parameters=parameters(call))
        return chosen

    def _control(self, call: Call, start: float, stop: float, method: Method) -> Control:
        chosen = self.choices.control
        if chosen is None:
            return own_control(call, start, stop, method, self.law)
        return chosen(own_control(call, start, stop, method, self.law)) if callable(chosen) else chosen

    def _stretch(self, call: Call, y0: Any, start: float, stop: float, method: Method, gradient: Gradient) -> Any:
        """The state at `stop`. It may have any shape: a batch that shares its steps is wrapped as one sample."""
        control = self._control(call, start, stop, method)
        apart = isinstance(control, PerSample) or (isinstance(control, Replay) and not control.grid.shared)
        how = {"t0": start, "t1": stop, "method": method, "control": control, "gradient": gradient}
        if apart:
            solution = solve(call.func, y0, **how)
            y1 = solution.y1
        else:
            single = isinstance(y0, Tensor)
            solution = solve(_as_one(call.func, single), tuple(part[None] for part in ((y0,) if single else y0)), **how)
            parts = tuple(part[0] for part in solution.y1)
            y1 = parts[0] if single else parts
        if self.choices.raises:
            raise_unsolved(solution, call.func, y1, t0=start, t1=stop)
        self.note(Carried(call.name, method.name, control, gradient, solution.grid, solution.stats))
        return _unsolved_as_nan(y1, solution, apart)


def _as_one(func: Any, single: bool) -> Callable[[Tensor, Any], Any]:
    """The field of a state that is wrapped as one sample."""

    def field(t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k = func(t, y[0][0] if single else tuple(part[0] for part in y))
        return tuple(part[None] for part in ((k,) if single else k))

    return field


def _unsolved_as_nan(y1: Any, solution: Solution, apart: bool) -> Any:
    unsolved = solution.status != int(Status.DONE)
    if not bool(unsolved.any()):
        return y1

    def filled(part: Tensor) -> Tensor:
        where = unsolved.to(part.device)
        return torch.where(where.reshape(-1, *[1] * (part.dim() - 1)) if apart else where[0], torch.nan, part)

    return filled(y1) if isinstance(y1, Tensor) else tuple(filled(part) for part in y1)
