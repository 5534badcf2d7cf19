"""A layer that is the solution of an initial value problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.models.block_solver import METHODS as METHODS
from verigrad.models.block_solver import RELEASED as RELEASED
from verigrad.models.block_solver import GradientName as GradientName
from verigrad.models.block_solver import GridName as GridName
from verigrad.models.block_solver import Solver as Solver
from verigrad.models.block_solver import named_solver as named_solver
from verigrad.models.fields import Field
from verigrad.solvers import BatchCoupled, Grid, Stats, Status


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
