"""What a solve gives back: the end state, the grid it walked, what it cost and how it ended."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import torch
from torch import Tensor

End = Literal["clip", "interpolate"]


class Status(IntEnum):
    """How the solve of one sample ended.

    NOT_CONVERGED: an implicit method did not solve for its stage. GRID_ENDED: a replayed grid ends before t1.
    """

    DONE = 0
    STEP_TOO_SMALL = 1
    TOO_MANY_STEPS = 2
    NOT_FINITE = 3
    NOT_CONVERGED = 4
    GRID_ENDED = 5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The accepted time steps of one solve: a row for each sample, or a single row if the batch shares its steps.

    All tensors live on the CPU and carry no gradient. Rows of fewer steps are filled with steps of length zero.

    t: float64 (rows, n), where each step starts.
    h: float64 (rows, n), its signed length; negative where time runs backwards.
    error: float64 (rows, n), the error ratio at which it was accepted (at most 1), zero where none was estimated.
    rejections: int64 (rows, n), how many attempts were refused just before it.
    steps: int64 (rows,), how many steps were accepted.
    end: whether the last step lands on t1 ("clip") or passes it and is interpolated.
    carries: whether the last stage of a step served as the first of the next one.
    shared: whether the batch shares its steps.
    method: the name of the method that made it; no other can replay it.
    """

    t: Tensor
    h: Tensor
    error: Tensor
    rejections: Tensor
    steps: Tensor
    end: End
    carries: bool
    shared: bool
    method: str


class Stats(NamedTuple):
    """What each sample cost, int64 (B,): evaluations of the field, accepted and rejected steps.

    A sample is charged what its own solve needs, as if it were alone; under a shared grid all are charged alike.
    """

    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor


class Solution(NamedTuple):
    """y1: the state at t1, in the form of y0; where a sample is not done, the last state that it reached.

    status: int64 (B,), values of `Status`, on the CPU.
    """

    y1: Tensor | tuple[Tensor, ...]
    grid: Grid
    stats: Stats
    status: Tensor


def prescribed_grid(t: tuple[float, ...], h: tuple[float, ...], *, end: End, carries: bool, method: str) -> Grid:
    """A grid that the whole batch shares, of steps that were given in advance."""
    return Grid(
        t=torch.tensor([t], dtype=torch.float64),
        h=torch.tensor([h], dtype=torch.float64),
        error=torch.zeros(1, len(t), dtype=torch.float64),
        rejections=torch.zeros(1, len(t), dtype=torch.int64),
        steps=torch.tensor([len(t)]),
        end=end,
        carries=carries,
        shared=True,
        method=method,
    )
