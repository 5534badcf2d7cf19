"""The front of the room: one initial value problem in, one `Solution` out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.solvers.adapt import Task, adapt
from verigrad.solvers.adjoint import Adjoined, adjoint_solve
from verigrad.solvers.check import check_choices, checked_field, checked_state, checked_times
from verigrad.solvers.control import BatchCoupled, Control, Fixed, PerSample, Replay
from verigrad.solvers.gradient import Adjoint, Checkpointed, Direct, Gradient, GridGradient
from verigrad.solvers.implicit import Implicit, march_implicit
from verigrad.solvers.law import TORCHDIFFEQ_0_2_5
from verigrad.solvers.march import evaluations, march, path_apart, path_together, square_root_rule
from verigrad.solvers.replaying import mirrored, reached
from verigrad.solvers.solution import Solution, Stats, Status, prescribed_grid
from verigrad.solvers.state import Field, State, finite_rows, take
from verigrad.solvers.tableau import DOPRI5, Tableau

Method = Tableau | Implicit


def solve(
    field: Callable[[Tensor, Any], Any],
    y0: Tensor | tuple[Tensor, ...],
    *,
    t0: float = 0.0,
    t1: float = 1.0,
    method: Method = DOPRI5,
    control: Control = PerSample(rtol=1e-3, atol=1e-3),  # noqa: B008 (frozen)
    gradient: Gradient = Direct(grid="frozen"),  # noqa: B008 (frozen)
) -> Solution:
    """Solve y' = field(t, y), y(t0) = y0 up to t1.

    field: called with t, 0-d where the batch shares its steps and (B,) under `PerSample`, where a field that uses time
        must broadcast it; and with y in the form of y0. The float64 time is rounded to the dtype of the state, which
        in bfloat16 leaves less than three digits. Returns the derivative in the
        same form. Under `PerSample` it is called with the samples that are still under way, so it must not close
        over others.
    y0: a tensor, or a tuple of tensors of different shapes, all batch first, floating point.
    t0, t1: finite; t1 < t0 solves backwards, t1 = t0 gives y0 back.
    method: an explicit Runge-Kutta method, or an implicit one under `Fixed`; adaptive controls need an embedded one.
    control: who chooses the steps.
    gradient: what is differentiated, and how.

    A sample that cannot be solved never raises: its `status` says why, and the others go on. Under `BatchCoupled`
    the batch is one system and ends as one. Raises BadInput for input that no solver could use.
    """
    state = checked_state(y0)
    t0, t1 = checked_times(t0, t1)
    inner = checked_field(field, is_tensor=isinstance(y0, Tensor))
    check_choices(method, control, gradient, state)
    if t0 == t1 or not len(state[0]):
        solution = _nothing_to_do(state, method)
    elif isinstance(gradient, Adjoint):
        solution = _by_adjoint(inner, state, t0, t1, method, control, gradient, _parameters(field, gradient))
    elif isinstance(gradient, Checkpointed):
        solution = _by_checkpoints(inner, state, t0, t1, method, control, gradient.every)
    else:
        solution = _directly(inner, state, t0, t1, method, control, gradient.grid)
    return solution._replace(y1=solution.y1[0]) if isinstance(y0, Tensor) else solution


def _directly(
    field: Field, y0: State, t0: float, t1: float, method: Method, control: Control, grid: GridGradient
) -> Solution:
    if isinstance(control, Fixed) and isinstance(method, Implicit):
        return _implicitly(field, y0, _equal_steps(t0, t1, control.steps), method)
    if isinstance(method, Implicit):
        raise AssertionError("checked before")
    if isinstance(control, PerSample | BatchCoupled):
        return _adaptively(field, y0, t0, t1, method, control, grid)
    return _along(field, y0, t0, t1, method, control, every=None)


def _adaptively(
    field: Field,
    y0: State,
    t0: float,
    t1: float,
    method: Tableau,
    control: PerSample | BatchCoupled,
    grid: GridGradient,
) -> Solution:
    if t1 > t0:
        return adapt(Task(field, t0, t1, method, control, grid), y0, sign=1.0)

    def run_back(t: Tensor, y: State) -> State:
        return tuple(-k for k in field(-t, y))

    return adapt(Task(run_back, -t0, -t1, method, control, grid), y0, sign=-1.0)


def _along(
    field: Field, y0: State, t0: float, t1: float, method: Tableau, control: Fixed | Replay, *, every: int | None
) -> Solution:
    """Along prescribed steps; `every` as in `march`."""
    batch = len(y0[0])
    if isinstance(control, Fixed):
        t, h = zip(*_equal_steps(t0, t1, control.steps), strict=True)
        grid = prescribed_grid(t, h, end="clip", carries=method.last_is_first, method=method.name)
        done = True
        y1 = march(field, y0, path_together(t, h, t1=None, carries=grid.carries), method, every=every)
    else:
        grid, done = control.grid, reached(control, method, t0, t1, batch)
        y1 = _again(field, y0, t1, method, control, done, every=every)
    steps = grid.steps.expand(batch) if grid.shared else grid.steps
    cost = evaluations(steps, method, carries=grid.carries, lands=grid.end == "clip")
    status = torch.where(finite_rows(y1), int(Status.DONE), int(Status.NOT_FINITE)).cpu()
    if done is not True:
        rows = done if isinstance(done, Tensor) else torch.full((batch,), bool(done))
        status = status.where((status != int(Status.DONE)) | rows, int(Status.GRID_ENDED))
    return Solution(y1=y1, grid=grid, stats=Stats(cost, steps, torch.zeros_like(steps)), status=status)


def _again(
    field: Field, y0: State, t1: float, method: Tableau, control: Replay, done: bool | Tensor, *, every: int | None
) -> State:
    """Along a recorded grid; who is not done ends with the last recorded step, or at y0 without any."""
    grid = control.grid
    if isinstance(done, bool):
        if not control.starts:
            return y0
        end = t1 if done and grid.end == "interpolate" else None
        path = path_together(control.starts, control.lengths, t1=end, carries=grid.carries)
        return march(field, y0, path, method, every=every)
    walks = grid.steps > 0
    if bool(walks.all()):
        return march(field, y0, path_apart(grid, t1, done), method, every=every)
    if not bool(walks.any()):
        return y0
    going, still = walks.nonzero()[:, 0], (~walks).nonzero()[:, 0]
    part = replace(grid, t=grid.t[going], h=grid.h[going], steps=grid.steps[going])
    walked = march(field, take(y0, going), path_apart(part, t1, done[going]), method, every=every)
    both = tuple(torch.cat(parts) for parts in zip(walked, take(y0, still), strict=True))
    return take(both, torch.cat([going, still]).argsort())


def _implicitly(field: Field, y0: State, steps: list[tuple[float, float]], method: Implicit) -> Solution:
    y1, converged, calls = march_implicit(field, y0, steps, method)
    status = torch.where(converged, int(Status.DONE), int(Status.NOT_CONVERGED))
    status = status.where(finite_rows(y1).cpu(), int(Status.NOT_FINITE))
    t, h = zip(*steps, strict=True)
    count = torch.full_like(status, len(steps))
    stats = Stats(calls.expand(len(status)), count, torch.zeros_like(count))
    return Solution(
        y1=y1, grid=prescribed_grid(t, h, end="clip", carries=False, method=method.name), stats=stats, status=status
    )


def _by_checkpoints(
    field: Field, y0: State, t0: float, t1: float, method: Method, control: Control, every: int | None
) -> Solution:
    """The grid is found without a graph, then walked with a graph of a few states only."""
    assert isinstance(method, Tableau)
    if isinstance(control, Fixed | Replay):
        n = control.steps if isinstance(control, Fixed) else control.grid.t.shape[1]
        return _along(field, y0, t0, t1, method, control, every=every or _stride(n))
    with torch.no_grad():
        found = _adaptively(field, y0, t0, t1, method, control, "frozen")
    if not torch.is_grad_enabled():
        return found
    every = every or _stride(found.grid.t.shape[1])
    again = _along(field, y0, t0, t1, method, Replay(grid=found.grid), every=every)
    cost = found.stats._replace(evaluations=found.stats.evaluations + again.stats.evaluations)
    return found._replace(y1=again.y1, stats=cost)


def _stride(steps: int) -> int | None:
    """Below four steps the states between are too few to be worth making anew: the graph of all is kept."""
    return None if steps < 4 else square_root_rule(steps)


def _by_adjoint(
    field: Field,
    y0: State,
    t0: float,
    t1: float,
    method: Method,
    control: Control,
    gradient: Adjoint,
    parameters: tuple[Tensor, ...],
) -> Solution:
    assert isinstance(method, Tableau)
    back: Control = control
    if isinstance(control, Replay) and method.mid is None:
        reached(control, method, t0, t1, len(y0[0]))
        if not control.grid.shared:
            raise BadInput(f"Adjoint cannot walk back along own grids with {method.name}. Use Direct or Checkpointed.")
        back = Replay(grid=mirrored(control.grid))
    elif not isinstance(control, Fixed):
        law = TORCHDIFFEQ_0_2_5 if isinstance(control, Replay) else control.law
        # Without parameters every part of the larger state is a sample's own, so each goes back by its own steps.
        kind = PerSample if isinstance(control, PerSample) and not parameters else BatchCoupled
        back = kind(rtol=gradient.rtol, atol=gradient.atol, law=law)

    def run(field: Field, y: State, *, start: float, stop: float, control: Control) -> Solution:
        return _directly(field, y, start, stop, method, control, "frozen")

    forwards = partial(run, start=t0, stop=t1, control=control)
    backwards = partial(run, start=t1, stop=t0, control=back)
    return adjoint_solve(Adjoined(field, parameters, forwards, backwards, isinstance(back, BatchCoupled)), y0)


def _parameters(field: Callable[..., Any], gradient: Adjoint) -> tuple[Tensor, ...]:
    if gradient.parameters is not None:
        given = gradient.parameters
    elif isinstance(field, nn.Module):
        given = tuple(field.parameters())
    else:
        raise BadInput(
            "Adjoint must know the parameters of its field. Make the field an nn.Module, or name them in "
            "Adjoint(parameters=...); () if it has none."
        )
    return tuple(p for p in given if p.requires_grad)


def _equal_steps(t0: float, t1: float, n: int) -> list[tuple[float, float]]:
    return [(t0 + (t1 - t0) * i / n, (t1 - t0) / n) for i in range(n)]


def _nothing_to_do(y0: State, method: Method) -> Solution:
    zeros = torch.zeros(len(y0[0]), dtype=torch.int64)
    grid = prescribed_grid((), (), end="clip", carries=False, method=method.name)
    return Solution(y1=y0, grid=grid, stats=Stats(zeros, zeros, zeros), status=zeros + int(Status.DONE))
