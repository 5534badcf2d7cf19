"""The states that a solver really passes.

A solve is walked again along its recorded grid (`Grid`), with the very steps, stages and end interpolation of the
solve, and the state at each accepted time is kept. What is measured on it holds for that discrete walk, which under a
loose tolerance is not the flow of the differential equation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.models.ode_block import ODEBlock, recording
from verigrad.solvers import Grid, Method, Status, Tableau
from verigrad.solvers.check import checked_field, checked_state
from verigrad.solvers.state import Field, State, choose, take
from verigrad.solvers.step import clock, interpolated, step


class Hop(NamedTuple):
    """One accepted step of everybody: where it starts, its length (0 for who has ended), and where in (0, 1] of it the
    end is read off; None where nobody's is read off inside. Floats for a batch that walks together, else (B,) float64.
    """

    t: float | Tensor
    h: float | Tensor
    end_at: float | Tensor | None


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The states of one solve, B samples, n the largest number of accepted steps.

    field: from (t, y) to y', on tuples. method: whose stages the steps are made of.
    hops: the n steps.
    t: float64 (B, n + 1) on the CPU; from t0 over the starts of the accepted steps to t1. A sample of fewer steps stays
        at its end.
    y: n + 1 states, each a tuple of tensors, batch first; the last is the solution, read off inside the last step where
        that passed t1.
    status: int64 (B,), values of `Status`; who is not DONE has its end at the last accepted step.
    """

    field: Field
    method: Tableau
    carries: bool
    hops: tuple[Hop, ...]
    t: Tensor
    y: tuple[State, ...]
    status: Tensor

    def time(self, node: int) -> float | Tensor:
        """The time of a node as the field sees it: one for all where the batch shares its steps, else (B,)."""
        apart = any(isinstance(hop.t, Tensor) for hop in self.hops)
        return self.t[:, node] if apart else float(self.t[0, node])

    def rows(self, rows: Tensor) -> Trajectory:
        """The trajectories of some samples (index), on the same steps."""

        def some(value: Any) -> Any:
            return value[rows] if isinstance(value, Tensor) and value.dim() else value

        hops = tuple(Hop(*map(some, hop)) for hop in self.hops)
        states = tuple(take(y, rows) for y in self.y)
        return Trajectory(
            field=self.field,
            method=self.method,
            carries=self.carries,
            hops=hops,
            t=self.t[rows],
            y=states,
            status=self.status[rows],
        )


def trajectory(model: nn.Module, x: Tensor, *, block: str) -> Trajectory:
    """The trajectory of one ODE block while a model, in eval mode, looks at a batch.

    The batch is seen as a whole: under `BatchCoupled` its samples share their steps.

    Args:
        model: with at least one ODE block. It is left as it was found.
        x: (B, ...) images.
        block: the block's name in `model.named_modules()`, e.g. "stem"; "" where the model is itself a block.

    Raises:
        BadInput: there is no such block, or the forward pass does not use it.
    """
    blocks = {name: part for name, part in model.named_modules() if isinstance(part, ODEBlock)}
    if block not in blocks:
        known = ", ".join(map(repr, blocks)) or "none"
        raise BadInput(f"The model has no ODE block named {block!r}. Its blocks: {known}.")
    chosen, inputs = blocks[block], list[Tensor]()
    handle = chosen.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        with left_as_found(model), torch.no_grad(), recording(model) as walks:
            model(x)
            if not inputs:
                raise BadInput(f"The forward pass does not use the block {block!r}. Name a block that it uses.")
            # A copy, so that what is measured later is what was walked, whatever becomes of the model.
            field = copy.deepcopy(chosen.field)
            solver, y0 = chosen.solver, field.initial(inputs[-1])
            return walked(field, y0, walks[block], solver.method, t0=solver.t0, t1=solver.t1)
    finally:
        handle.remove()


def walked(
    field: Any, y0: Tensor | State, solve: Any, method: Method, *, t0: float = 0.0, t1: float = 1.0
) -> Trajectory:
    """The trajectory of a solve, walked again from y0.

    Args:
        field, y0: as `solve` takes them.
        solve: the `Solution` of that solve, or its `Walk`; of which only the grid and the status are used.
        method: the method of that solve.
        t0, t1: its interval.

    Raises:
        BadInput: the method is implicit; the grid was made by another method, or for another batch.
    """
    if not isinstance(method, Tableau):
        raise BadInput(f"A trajectory is walked by explicit methods. Got {method.name}; solve by one of those.")
    grid: Grid = solve.grid
    state = checked_state(y0)
    if grid.method != method.name:
        raise BadInput(f"The grid was made by the method {grid.method}. Got {method.name}; walk it with {grid.method}.")
    if not grid.shared and len(grid.steps) != len(state[0]):
        raise BadInput(f"The grid has {len(grid.steps)} rows, but the batch has {len(state[0])} samples.")
    inner = checked_field(field, is_tensor=isinstance(y0, Tensor))
    hops = tuple(_hops(grid, solve.status == int(Status.DONE), t1))
    with torch.no_grad():
        states = [state, *(y for y, _ in hopping(inner, method, grid.carries, hops, state))]
    return Trajectory(
        field=inner,
        method=method,
        carries=grid.carries,
        hops=hops,
        t=_times(grid, solve.status == int(Status.DONE), t0, t1),
        y=tuple(tuple(part.detach() for part in y) for y in states),
        status=solve.status,
    )


def hopping(
    field: Field, method: Tableau, carries: bool, hops: tuple[Hop, ...], y: State
) -> Iterator[tuple[State, State]]:
    """After each step the state, and the derivative with which the next step begins (empty where it is made anew)."""
    k1: State = ()
    for hop in hops:
        y, k1 = hopped(field, method, carries, hop, y, k1)
        yield y, k1


def hopped(field: Field, method: Tableau, carries: bool, hop: Hop, y: State, k1: State) -> tuple[State, State]:
    """One step from y, with k1 = f(t, y) where it is carried over."""
    t, h, end_at = hop
    k1 = k1 or tuple(field(clock(t, y[0]), y))
    made = step(field, method, y, k1, t, h, all_stages=carries or end_at is not None)
    after = made.y1
    if end_at is not None:
        inside = interpolated(method, y, made.stages, h, end_at)
        after = inside if isinstance(end_at, float) else choose(torch.as_tensor(end_at) < 1, inside, made.y1)
    return after, made.stages[-1] if carries else ()


def _hops(grid: Grid, done: Tensor, t1: float) -> Iterator[Hop]:
    n = grid.t.shape[1]
    if grid.shared:
        for i, (t, h) in enumerate(zip(grid.t[0].tolist(), grid.h[0].tolist(), strict=True)):
            inside = i + 1 == n and grid.end == "interpolate" and bool(done.all())
            yield Hop(t, h, (t1 - t) / h if inside else None)
        return
    for i in range(n):
        t, h = grid.t[:, i], grid.h[:, i]
        going, last = grid.steps > i, (grid.steps == i + 1) & done
        end_at = torch.where(last, (t1 - t) / torch.where(going, h, 1.0), 1.0) if grid.end == "interpolate" else None
        yield Hop(torch.where(going, t, t1), h, end_at if bool(last.any()) else None)


def _times(grid: Grid, done: Tensor, t0: float, t1: float) -> Tensor:
    """The accepted times (B, n + 1); filled up with t1, or with the end of the last step where t1 was not reached."""
    batch, n = len(done), grid.t.shape[1]
    steps, t, h = (v.expand(batch, *v.shape[1:]) for v in (grid.steps, grid.t, grid.h))
    if not n:
        return torch.full((batch, 1), t0, dtype=torch.float64)
    at = (steps - 1).clamp(min=0)[:, None]
    end = torch.where(steps > 0, (t.gather(1, at) + h.gather(1, at))[:, 0], t0)
    end = torch.where(done, t1, end)[:, None]
    nodes = torch.cat([t, end], 1)
    return torch.where(torch.arange(n + 1) < steps[:, None], nodes, end)
