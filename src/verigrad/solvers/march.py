"""The loop along steps that were given in advance: by `Fixed`, or by the grid of an earlier solve."""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from verigrad.solvers.solution import Grid
from verigrad.solvers.state import Field, State, take
from verigrad.solvers.step import clock, interpolated, step
from verigrad.solvers.tableau import Tableau

EVERYBODY = slice(None)
Rows = Tensor | slice
"""Rows of the chunk that is under way: an index, or all of them."""


Leg = tuple[list[State], State, State]


class Stride(NamedTuple):
    """One step of everybody who is under way.

    t, h: plain floats if the batch walks together, so that no tensor is ever read; else float64 (rows,).
    end_at: where in (0, 1] of the step those who end here are read off; None where they land.
    ends: who ends with this step; None if nobody.
    goes_on: who takes the next one; None if nobody.
    """

    t: float | Tensor
    h: float | Tensor
    end_at: float | Tensor | None
    ends: Rows | None
    goes_on: Rows | None


class Path(NamedTuple):
    """All strides, and the order that puts the end states back into that of the batch (None: they are in it).

    carries: whether the last stage of a step is the first of the next one.
    """

    strides: list[Stride]
    order: Tensor | None
    carries: bool


def path_together(t: tuple[float, ...], h: tuple[float, ...], *, t1: float | None, carries: bool) -> Path:
    """The path of a batch that walks together; t1 is where to read off the last step, None if it lands there."""
    strides = [Stride(start, length, None, None, EVERYBODY) for start, length in zip(t, h, strict=True)]
    end_at = None if t1 is None else (t1 - t[-1]) / h[-1]
    strides[-1] = strides[-1]._replace(end_at=end_at, ends=EVERYBODY, goes_on=None)
    return Path(strides, None, carries)


def path_apart(grid: Grid, t1: float, done: Tensor) -> Path:
    """The path of a batch in which each sample has its own steps.

    done: (B,) bool; the samples that never reached t1 are read off at the end of their last step.
    """
    under_way = torch.arange(len(grid.steps))
    strides, ended = [], []
    for n in range(grid.t.shape[1]):
        t, h = grid.t[under_way, n], grid.h[under_way, n]
        last = grid.steps[under_way] <= n + 1
        end_at = None
        if grid.end == "interpolate":
            end_at = torch.where(done[under_way], (t1 - t) / h, 1.0)
        ends = EVERYBODY if bool(last.all()) else last.nonzero()[:, 0] if bool(last.any()) else None
        goes_on = None if bool(last.all()) else (~last).nonzero()[:, 0] if bool(last.any()) else EVERYBODY
        strides.append(Stride(t, h, end_at, ends, goes_on))
        ended.append(under_way[last])
        under_way = under_way[~last]
    order = torch.cat(ended).argsort() if sum(map(bool, map(len, ended))) > 1 else None
    return Path(strides, order, grid.carries)


def march(field: Field, y: State, path: Path, method: Tableau, *, every: int | None = None) -> State:
    """Walk the path. With `every`, only the state before each so many steps is kept, and the rest made anew."""
    ended: list[State] = []
    k1: State = ()
    every = every or len(path.strides)
    for first in range(0, len(path.strides), every):
        leg = path.strides[first : first + every]
        if every == len(path.strides):
            more, y, k1 = _walk(field, y, k1, leg, path.carries, method)
        else:
            again = (_walk, field, y, k1, leg, path.carries, method)
            more, y, k1 = cast(Leg, checkpoint(*again, use_reentrant=False))
        ended += more
    y1 = ended[0] if len(ended) == 1 else tuple(torch.cat(parts) for parts in zip(*ended, strict=True))
    return y1 if path.order is None else take(y1, path.order)


def _walk(field: Field, y: State, k1: State, strides: list[Stride], carries: bool, method: Tableau) -> Leg:
    """A leg of the path: the states of those who end on it, and state and derivative of the others; no side effects."""
    ended: list[State] = []
    for t, h, end_at, ends, goes_on in strides:
        k1 = k1 if k1 and carries else field(clock(t, y[0]), y)
        needed = end_at is not None if goes_on is None else carries
        made = step(field, method, y, k1, t, h, all_stages=needed)
        if ends is not None:
            end = made.y1 if end_at is None else interpolated(method, y, made.stages, h, end_at)
            ended.append(_rows(end, ends))
        if goes_on is None:
            return ended, (), ()
        y, k1 = _rows(made.y1, goes_on), _rows(made.stages[-1], goes_on)
    return ended, y, k1


def _rows(y: State, rows: Rows) -> State:
    return y if isinstance(rows, slice) else take(y, rows)


def evaluations(steps: Tensor, method: Tableau, *, carries: bool, lands: bool) -> Tensor:
    """How often the field is called for so many steps; a landing method spares a last stage that nobody reads."""
    cost = steps * (method.stages - int(carries)) + int(carries) - int(method.last_is_first and lands)
    return torch.where(steps > 0, cost, 0)


def square_root_rule(steps: int) -> int:
    """How many steps between two kept states make the memory grow with the square root of the steps."""
    return max(1, math.isqrt(max(1, steps) - 1) + 1)
