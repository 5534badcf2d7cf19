"""The loop that chooses its steps."""

from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.solvers.active import Active
from verigrad.solvers.control import BatchCoupled, PerSample
from verigrad.solvers.gradient import GridGradient
from verigrad.solvers.law import error_norm, first_step, next_step
from verigrad.solvers.record import Record, stats
from verigrad.solvers.solution import Solution, Status
from verigrad.solvers.state import Field, State, choose, finite_rows, take
from verigrad.solvers.step import Step, clock, interpolated, step
from verigrad.solvers.tableau import Tableau


class Front(NamedTuple):
    """Where the active rows stand: time, proposed step, state and its derivative.

    t and h are float64 on the CPU, 0-d or (rows,); under a differentiated grid they carry its graph.
    unsound: whether the last attempt was refused because it was not finite.
    """

    t: Tensor
    h: Tensor
    y: State
    k1: State
    unsound: Tensor

    def take(self, rows: Tensor) -> "Front":
        return Front(self.t[rows], self.h[rows], take(self.y, rows), take(self.k1, rows), self.unsound[rows])


class Task(NamedTuple):
    """What an adaptive solve is to do, unchanged from start to end. Time runs upwards, from t0 to t1 > t0."""

    field: Field
    t0: float
    t1: float
    method: Tableau
    control: PerSample | BatchCoupled
    grid_gradient: GridGradient

    @property
    def shared(self) -> bool:
        return isinstance(self.control, BatchCoupled)


class Group(NamedTuple):
    """Rows that are solved in one chunk, and how many steps each of them has attempted."""

    front: Front
    active: Active
    attempts: int


def adapt(task: Task, y0: State, *, sign: float) -> Solution:
    """Solve under an adaptive control. `sign` only labels the grid: −1 for a field that is run backwards in time."""
    batch = len(y0[0])
    active = Active(batch, shared=task.shared)
    record = Record(len(active.rows))
    groups = [Group(_begin(task, y0, active), active, 0)]
    while groups:
        groups += _run(task, groups.pop(), record)
    y1, status = active.gather()
    end, name = task.control.end, task.method.name
    grid, rejected = record.grid(end=end, carries=True, shared=task.shared, sign=sign, method=name)
    cost = stats(grid, rejected, batch, first=2, each=task.method.stages - 1)
    return Solution(y1=y1, grid=grid, stats=cost, status=status)


def _run(task: Task, group: Group, record: Record) -> list[Group]:
    """Solve a group to its end, but for the rows whose attempt was not finite: they go on in groups of their own.

    Nothing of such an attempt may enter the graph of the others: a zero gradient times a non-finite derivative is not
    finite. So they attempt it once more without those rows, which is counted once.
    """
    front, active, attempts = group
    apart: list[Group] = []
    while len(active.rows):
        if attempts == task.control.max_steps:
            active.retire(torch.ones_like(front.t, dtype=torch.bool), front.y, Status.TOO_MANY_STEPS)
            break
        front = _drop_stuck(front, active)
        if not len(active.rows):
            break
        tried = _attempt(task, front)
        bad = ~tried.ratio.isfinite()
        if not bool(bad.any()):
            front = _advance(task, front, tried, active, record)
            attempts += 1
            continue
        rows = bad.reshape(-1).nonzero()[:, 0]
        record.attempt(active.rows[rows], front.t[bad], tried.h[bad], tried.ratio[bad], bad.new_zeros(len(rows)))
        shorter = tried.h * task.control.law.shrink
        refused = front._replace(h=shorter, unsound=bad & ~_finite(task, tried.step))
        if bool(bad.all()):
            front, attempts = refused, attempts + 1
        else:
            apart.append(Group(refused.take(rows), active.split(rows), attempts + 1))
            front = _narrowed(front, active, ~bad)
    return apart


def _differentiated(task: Task, *, by: tuple[GridGradient, ...]) -> torch.set_grad_enabled:
    """Records a graph of the step sizes only under the given ways of differentiating the grid."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and task.grid_gradient in by)


def _begin(task: Task, y0: State, active: Active) -> Front:
    """The start of all rows whose derivative and first step are finite; the others end here, outside of the graph."""
    while True:
        start = torch.full(() if task.shared else (len(y0[0]),), task.t0, dtype=torch.float64)
        k1 = task.field(clock(start, y0[0]), y0)
        with _differentiated(task, by=("first", "all")):
            h = first_step(task.field, task.method, task.control, y0, k1, start, shared=task.shared)
        sound = h.detach().isfinite()
        if not task.shared:
            sound = sound & finite_rows(k1).cpu()
        front = Front(t=start, h=h, y=y0, k1=k1, unsound=~sound)
        if task.shared or bool(sound.all()):
            return front
        active.retire(~sound, y0, Status.NOT_FINITE)
        rows = active.keep(sound)
        if rows is None or not len(rows):
            return front
        y0 = take(y0, rows)


def _drop_stuck(front: Front, active: Active) -> Front:
    """Retire the rows whose step no longer moves the time, or is not a number."""
    stuck = ~(front.t + front.h > front.t)
    if not bool(stuck.any()):
        return front
    active.retire(stuck & front.unsound, front.y, Status.NOT_FINITE)
    active.retire(stuck & ~front.unsound, front.y, Status.STEP_TOO_SMALL)
    return _narrowed(front, active, ~stuck)


def _narrowed(front: Front, active: Active, going: Tensor) -> Front:
    rows = active.keep(going)
    return front if rows is None or not len(rows) else front.take(rows)


class Tried(NamedTuple):
    """One attempted step: who would reach t1 with it, its length, its error ratio, and the length to go on with."""

    step: Step
    lands: Tensor
    h: Tensor
    ratio: Tensor
    h_next: Tensor


def _attempt(task: Task, front: Front) -> Tried:
    """Try one step of every active row."""
    t, h, y, k1, _ = front
    lands = t.detach() + h.detach() >= task.t1
    if task.control.end == "clip":
        h = torch.where(lands, task.t1 - t, h)
    trial = step(task.field, task.method, y, k1, t, h, all_stages=True)
    ratio, h_next = _judge(task, trial, y, h)
    return Tried(trial, lands, h, ratio, h_next)


def _advance(task: Task, front: Front, tried: Tried, active: Active, record: Record) -> Front:
    """Keep what is good enough of a finite attempt."""
    trial, lands, h, ratio, h_next = tried
    t, _, y, k1, _ = front
    accepted = ratio <= 1
    record.attempt(active.rows, t, h, ratio, accepted)
    done = accepted & lands
    if bool(done.any()):
        active.retire(done, _end(task, front, trial, h), Status.DONE)
    front = Front(
        t=torch.where(accepted, t + h, t),
        h=h_next,
        y=choose(accepted, trial.y1, y),
        k1=choose(accepted, trial.stages[-1], k1),
        unsound=torch.zeros_like(accepted),
    )
    return _narrowed(front, active, ~done)


def _judge(task: Task, trial: Step, y: State, h: Tensor) -> tuple[Tensor, Tensor]:
    """The error ratio of an attempt, without a graph, and the next step length; float64 on the CPU.

    Bringing the ratio to the CPU is the one read from the device in an attempt.
    """
    assert task.method.error is not None
    control = task.control
    with _differentiated(task, by=("all",)):
        norm = error_norm(trial.stages, task.method.error, y, trial.y1, control, shared=task.shared)
        ratio = h * norm.double().cpu()
        return ratio.detach(), next_step(h, ratio, control.law, task.method)


def _finite(task: Task, trial: Step) -> Tensor:
    """Whether the attempt itself is finite, and not only its error ratio an overflow; 0-d or (rows,) on the CPU."""
    rows = finite_rows((*trial.y1, *trial.stages[-1])).cpu()
    return rows.all() if task.shared else rows


def _end(task: Task, front: Front, trial: Step, h: Tensor) -> State:
    """The state at t1 of the rows whose step reaches it."""
    if task.control.end == "clip":
        return trial.y1
    return interpolated(task.method, front.y, trial.stages, h, (task.t1 - front.t) / h)
