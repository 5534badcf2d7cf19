"""A layer that is the solution of an initial value problem, and the choice of how it is solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.fields import Field, State
from verigrad.solvers import (
    BOSH3,
    DOPRI5,
    EULER,
    HEUN2,
    MIDPOINT,
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    TSIT5,
    BatchCoupled,
    Control,
    Direct,
    Fixed,
    Gradient,
    Grid,
    PerSample,
    Solution,
    Stats,
    Status,
    Tableau,
    solve,
)

# The names that torchdiffeq and the SONet code use; there "rk4" is the 3/8 rule.
METHODS = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "rk4": RK4_38,
    "heun2": HEUN2,
    "bosh3": BOSH3,
    "dopri5": DOPRI5,
    "tsit5": TSIT5,
}

GridName = Literal["all", "first", "frozen"]


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a block is solved: everything that `solve` takes besides the field and the start."""

    method: Tableau
    control: Control
    gradient: Gradient
    t0: float = 0.0
    t1: float = 1.0

    def __call__(self, field: Callable[[Tensor, Any], Any], y0: State) -> Solution:
        return solve(
            field,
            y0,
            t0=self.t0,
            t1=self.t1,
            method=self.method,
            control=self.control,
            gradient=self.gradient,
        )


RELEASED = Solver(
    method=DOPRI5,
    control=BatchCoupled(rtol=0.1, atol=0.1, end="interpolate", law=TORCHDIFFEQ_0_0_1),
    gradient=Direct(grid="all"),
)
"""What the SONet code runs: torchdiffeq 0.0.1, dopri5, tolerance 0.1, backpropagation through everything."""


def named_solver(*, method: str, tol: float, control: Literal["batch", "sample"], steps: int, grid: GridName) -> Solver:
    """The solver that plain words describe, over [0, 1] and under the law of torchdiffeq 0.0.1.

    Args:
        method: one of `METHODS`. Those without an error estimate take equal steps.
        tol: rtol and atol of the adaptive methods.
        control: whether the batch shares its steps ("batch") or each sample has its own ("sample").
        steps: how many equal steps the other methods take.
        grid: what of the time grid is differentiated.

    Raises:
        BadInput: for an unknown word or a number out of range.
    """
    if method not in METHODS:
        raise BadInput(f"The 'method' must be one of {', '.join(METHODS)}. Got {method!r}.")
    if control not in ("batch", "sample"):
        raise BadInput(f"The 'control' must be 'batch' or 'sample'. Got {control!r}.")
    tableau = METHODS[method]
    if tableau.error is None:
        chosen: Control = Fixed(steps=steps)
    else:
        kind = BatchCoupled if control == "batch" else PerSample
        chosen = kind(rtol=tol, atol=tol, end="interpolate", law=TORCHDIFFEQ_0_0_1)
    return Solver(method=tableau, control=chosen, gradient=Direct(grid=grid))


class Walk(NamedTuple):
    """How one solve went: its accepted steps, what it cost, and how each sample ended. No graph."""

    grid: Grid
    stats: Stats
    status: Tensor


class ODEBlock(nn.Module):
    """output(y(t1)) of a field, for an input (B, ...).

    A sample that could not be solved comes out as NaN, so that it is counted as a non-finite prediction and never as a
    prediction.

    Args:
        field: the initial value problem.
        solver: how it is solved. A frozen value: a twin of the model is made by giving the block another one.
    """

    def __init__(self, field: Field, solver: Solver) -> None:
        super().__init__()
        self.field = field
        self.solver = solver
        self.watch: Callable[[Walk], None] | None = None

    @property
    def batch_coupled(self) -> bool:
        """Whether the output for one sample depends on its batch-mates."""
        return isinstance(self.solver.control, BatchCoupled)

    def forward(self, x: Tensor) -> Tensor:
        solution = self.solver(self.field, self.field.initial(x))
        if self.watch is not None:
            self.watch(Walk(solution.grid, solution.stats, solution.status))
        y = self.field.output(solution.y1)
        unsolved = solution.status != int(Status.DONE)
        if bool(unsolved.any()):
            y = torch.where(unsolved.to(y.device).reshape(-1, *[1] * (y.dim() - 1)), torch.nan, y)
        return y


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Walk]]:
    """While it is open, the last walk of every ODE block of a model, by the block's name.

    >>> with recording(model) as walks:          # doctest: +SKIP
    ...     model(x)
    >>> walks["stem"].grid.h                     # doctest: +SKIP
    """
    blocks = {name: part for name, part in model.named_modules() if isinstance(part, ODEBlock)}
    before = {name: block.watch for name, block in blocks.items()}
    walks: dict[str, Walk] = {}

    def watcher(name: str) -> Callable[[Walk], None]:
        def note(walk: Walk) -> None:
            walks[name] = walk

        return note

    try:
        for name, block in blocks.items():
            block.watch = watcher(name)
        yield walks
    finally:
        for name, block in blocks.items():
            block.watch = before[name]
