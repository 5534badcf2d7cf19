"""The front end that raises, for callers who want a state or an error and nothing in between."""

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from verigrad.core.errors import VerigradError
from verigrad.solvers.control import Control
from verigrad.solvers.gradient import Gradient
from verigrad.solvers.solution import Solution, Status
from verigrad.solvers.solve import Method, solve
from verigrad.solvers.state import State, finite_rows
from verigrad.solvers.step import clock

_FIX = {
    Status.STEP_TOO_SMALL: "the system is stiff or has a jump there: loosen rtol and atol, or use Fixed steps",
    Status.TOO_MANY_STEPS: "raise max_steps, or loosen rtol and atol",
    Status.NOT_FINITE: "the field returned NaN or infinity there: check its weights and input, or scale the input down",
    Status.GRID_ENDED: "replay the interval of the solve that made the grid, and only where it was done",
    Status.NOT_CONVERGED: "take more steps, or give the implicit method more iterations",
}
_PROBES = (0.0, 1e-12, 1e-9, 1e-6, 1e-3)
"""Fractions of the interval at which a batch that ended as one is looked at for the sample that ended it."""


class Choices(TypedDict, total=False):
    """The keyword arguments of `solve`."""

    t0: float
    t1: float
    method: Method
    control: Control
    gradient: Gradient


class UnsolvedSample(VerigradError):
    """A solve did not reach t1 for at least one sample; the message names the first one, if one is to blame."""


def solve_or_raise(
    field: Callable[[Tensor, Any], Any], y0: Tensor | tuple[Tensor, ...], **choices: Unpack[Choices]
) -> Solution:
    """As `solve`, with the same arguments; raises UnsolvedSample unless every sample is done."""
    solution = solve(field, y0, **choices)
    raise_unsolved(solution, field, solution.y1, t0=choices.get("t0", 0.0), t1=choices.get("t1", 1.0))
    return solution


def raise_unsolved(
    solution: Solution, field: Callable[[Tensor, Any], Any], y1: Tensor | tuple[Tensor, ...], *, t0: float, t1: float
) -> None:
    """Raise UnsolvedSample unless every sample is done; y1 is what the field takes, batch first."""
    unsolved = solution.status.nonzero()[:, 0].tolist()
    if not unsolved:
        return
    grid = solution.grid
    alone = not grid.shared or len(unsolved) < len(solution.status)
    sample = unsolved[0] if alone else None
    row = 0 if grid.shared else unsolved[0]
    steps = int(grid.steps[row])
    reached = float(grid.t[row, steps - 1] + grid.h[row, steps - 1]) if steps else t0
    status = Status(int(solution.status[unsolved[0]]))
    if not alone and status is Status.NOT_FINITE:
        sample = _culprit(field, y1, reached, t1 - t0)
    who = "The batch" if sample is None else f"Sample {sample}"
    where = f"after t = {float(grid.t[row, steps - 1]):.6g}" if steps else "at the start"
    last = f", whose last accepted step was {float(grid.h[row, steps - 1]):.3g}" if steps else ""
    others = f" ({len(unsolved)} samples of {len(solution.status)} did)" if len(unsolved) > 1 else ""
    reason = status.name.lower().replace("_", " ")
    raise UnsolvedSample(f"{who} stopped {where}{last}: {reason}{others}. Likely fix: {_FIX[status]}.")


def _culprit(field: Callable[[Tensor, Any], Any], y1: Tensor | tuple[Tensor, ...], t: float, span: float) -> int | None:
    """The first sample whose own derivative is not finite at (t, y1) or a little later; None if none is found."""
    y = (y1,) if isinstance(y1, Tensor) else y1
    if y[0].dim() == 0:
        return None
    k: State | None = None
    for fraction in _PROBES:
        h = fraction * span
        there = y if k is None else tuple(a + h * b for a, b in zip(y, k, strict=True))
        with torch.no_grad():
            slope = field(clock(t + h, y[0]), there[0] if isinstance(y1, Tensor) else there)
        slope = (slope,) if isinstance(slope, Tensor) else tuple(slope)
        bad = (~(finite_rows(slope) & finite_rows(there))).nonzero()[:, 0].tolist()
        if bad:
            return bad[0]
        k = k or slope
    return None
