"""A grid fits one method and one interval, and a row that did not reach t1 does not when it is walked again."""

import dataclasses
import math

import pytest
import torch
from systems import apart, gradients, leaf, rotation

from verigrad.core.errors import BadInput
from verigrad.solvers import (
    BOSH3,
    DOPRI5,
    EULER,
    RK4,
    Adjoint,
    BatchCoupled,
    Checkpointed,
    Direct,
    Fixed,
    PerSample,
    Replay,
    Status,
    solve,
)

ENDS = [c(rtol=1e-6, atol=1e-6, end=end) for c in (PerSample, BatchCoupled) for end in ("clip", "interpolate")]
Y0 = torch.tensor([[1.0, 0.0], [30.0, -20.0]], dtype=torch.float64)
each_end = pytest.mark.parametrize("control", ENDS, ids=lambda c: f"{type(c).__name__}-{c.end}")


def grows(t, y):
    return y


@each_end
@pytest.mark.parametrize("other", [EULER, RK4, BOSH3], ids=lambda m: m.name)
def test_another_method_is_refused(control, other):
    grid = solve(rotation, Y0, control=control).grid
    with pytest.raises(BadInput, match=f"method dopri5.*Got {other.name}"):
        solve(rotation, Y0, method=other, control=Replay(grid=grid))


def test_a_method_without_a_middle_does_not_interpolate():
    grid = dataclasses.replace(solve(rotation, Y0, control=ENDS[3]).grid, method="rk4")
    with pytest.raises(BadInput, match="rk4 has no interpolant"):
        solve(rotation, Y0, method=RK4, control=Replay(grid=grid))


@each_end
@pytest.mark.parametrize(
    ("interval", "said"),
    [({"t0": 7.0, "t1": 8.0}, "starts at"), ({"t1": -1.0}, "other way"), ({"t1": 0.01}, "past t1")],
)
def test_another_interval_is_refused(control, interval, said):
    grid = solve(rotation, Y0, control=control).grid
    with pytest.raises(BadInput, match=said):
        solve(rotation, Y0, control=Replay(grid=grid), **interval)


@each_end
def test_a_grid_that_ends_early_is_not_done(control):
    grid = solve(rotation, Y0, control=control).grid
    assert solve(rotation, Y0, t1=5.0, control=Replay(grid=grid)).status.tolist() == [Status.GRID_ENDED] * 2
    stopped = solve(rotation, Y0, t1=5.0, control=dataclasses.replace(control, max_steps=4))
    again = solve(rotation, Y0, t1=5.0, control=Replay(grid=stopped.grid))
    assert again.status.tolist() == [Status.GRID_ENDED] * 2
    assert apart(again.y1, stopped.y1) < 1e-14


@each_end
def test_checkpointed_gives_what_direct_gives_where_the_steps_run_out(control):
    control = dataclasses.replace(control, max_steps=6)
    direct, kept = leaf(Y0), leaf(Y0)
    a = solve(rotation, direct, t1=5.0, control=control)
    b = solve(rotation, kept, t1=5.0, control=control, gradient=Checkpointed())
    assert b.status.tolist() == a.status.tolist() == [Status.TOO_MANY_STEPS] * 2
    assert apart(b.y1, a.y1) < 1e-14
    assert apart(gradients(b.y1, kept), gradients(a.y1, direct)) < 1e-14


def test_a_short_solve_keeps_its_graph_and_makes_nothing_anew():
    calls = []

    def counted(t, y):
        calls.append(len(y))
        return -y * y

    for steps, anew in ((3, 0), (9, 9)):
        calls.clear()
        y0 = leaf(Y0.abs() / 30)
        solution = solve(counted, y0, method=EULER, control=Fixed(steps=steps), gradient=Checkpointed())
        assert len(calls) == steps
        torch.autograd.grad(solution.y1.sum(), y0)
        assert len(calls) == steps + anew


@pytest.mark.parametrize("method", [EULER, RK4, DOPRI5], ids=lambda m: m.name)
def test_adjoint_along_a_replayed_grid(method):
    gradient = Adjoint(rtol=1e-9, atol=1e-9, parameters=())
    control = Fixed(steps=400)
    direct, back = leaf(Y0), leaf(Y0)
    grid = solve(rotation, Y0, method=method, control=control).grid
    a = solve(rotation, direct, method=method, control=control, gradient=Direct())
    b = solve(rotation, back, method=method, control=Replay(grid=grid), gradient=gradient)
    slack = 0.01 if method is EULER else 1e-8
    assert apart(gradients(b.y1, back), gradients(a.y1, direct)) < slack


def test_adjoint_names_the_own_grid_that_it_cannot_walk_back():
    grid = solve(rotation, Y0, method=RK4, control=Fixed(steps=3)).grid
    own = dataclasses.replace(
        grid,
        shared=False,
        **{k: getattr(grid, k).expand(2, -1) for k in ("t", "h", "error", "rejections")},
        steps=grid.steps.expand(2),
    )
    with pytest.raises(BadInput, match="walk back along own grids"):
        solve(
            rotation,
            Y0,
            method=RK4,
            control=Replay(grid=own),
            gradient=Adjoint(rtol=0.1, atol=0.1, parameters=()),
        )


def test_own_grids_start_where_the_interval_does_on_every_row():
    grid = solve(grows, Y0, control=ENDS[0]).grid
    shifted = grid.t.clone()
    shifted[1] += 0.5
    with pytest.raises(BadInput, match=r"starts at t = 0\.5"):
        solve(grows, Y0, control=Replay(grid=dataclasses.replace(grid, t=shifted)))
    assert float(solve(grows, Y0, control=Replay(grid=grid)).y1[0, 0]) == pytest.approx(math.e, rel=1e-5)
