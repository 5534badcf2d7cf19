"""Whose error chooses whose steps, and that a grid can be walked again."""

import pytest
import torch
from systems import ConvField, PairField, apart, gradients, images, leaf, rotation

from verigrad.core.errors import BadInput
from verigrad.solvers import (
    BOSH3,
    DOPRI5,
    HEUN2,
    RK4,
    TORCHDIFFEQ_0_0_1,
    TSIT5,
    BatchCoupled,
    Direct,
    Fixed,
    PerSample,
    Replay,
    solve,
)

METHODS = [HEUN2, BOSH3, DOPRI5, TSIT5]


def pair(batch):
    return images(batch, 4), images(batch, 2)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("end", ["clip", "interpolate"])
@pytest.mark.parametrize("grid", ["frozen", "all"])
def test_per_sample_is_a_batch_of_one(method, end, grid):
    field, y0 = PairField(), pair(5)
    settings = {"rtol": 0.003, "atol": 0.003, "end": end, "law": TORCHDIFFEQ_0_0_1}
    together = leaf(y0)
    whole = solve(field, together, method=method, control=PerSample(**settings), gradient=Direct(grid=grid))
    whole_gradient = torch.autograd.grad(sum((p**3).sum() for p in whole.y1), together)
    assert len(set(whole.grid.h[:, 0].tolist())) == 5
    for i in range(5):
        one = leaf(tuple(p[i : i + 1] for p in y0))
        alone = solve(field, one, method=method, control=BatchCoupled(**settings), gradient=Direct(grid=grid))
        gradient = torch.autograd.grad(sum((p**3).sum() for p in alone.y1), one)
        n = int(alone.grid.steps[0])
        assert n == int(whole.grid.steps[i])
        assert apart(whole.grid.h[i, :n], alone.grid.h[0]) < 1e-9
        assert whole.grid.rejections[i, :n].tolist() == alone.grid.rejections[0].tolist()
        assert int(whole.stats.evaluations[i]) == int(alone.stats.evaluations[0])
        assert apart(tuple(p[i : i + 1] for p in whole.y1), alone.y1) < 1e-9
        assert apart(tuple(p[i : i + 1] for p in whole_gradient), gradient) < 1e-7


def test_per_sample_does_not_know_its_batch_mates():
    field, y0 = ConvField(3), images(6, 3)
    control = PerSample(rtol=0.01, atol=0.01)
    whole = solve(field, y0, control=control)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    shuffled = solve(field, y0[order], control=control)
    assert apart(shuffled.y1, whole.y1[order]) < 1e-12
    company = solve(field, torch.cat([y0[:2], 3 * y0[2:]]), control=control)
    assert apart(company.y1[:2], whole.y1[:2]) < 1e-12
    coupled = solve(field, torch.cat([y0[:2], 3 * y0[2:]]), control=BatchCoupled(rtol=0.01, atol=0.01))
    alone = solve(field, y0, control=BatchCoupled(rtol=0.01, atol=0.01))
    assert apart(coupled.y1[:2], alone.y1[:2]) > 1e-6


def test_no_gradient_crosses_between_samples_under_per_sample():
    field, y0 = ConvField(3), leaf(images(4, 3))
    for control, crosses in ((PerSample(rtol=0.1, atol=0.1), False), (BatchCoupled(rtol=0.1, atol=0.1), True)):
        y1 = solve(field, y0, control=control, gradient=Direct(grid="all")).y1
        (gradient,) = torch.autograd.grad(y1[0].sum(), y0)
        assert bool(gradient[1:].abs().max() > 0) is crosses


def test_finished_samples_are_evaluated_no_more():
    seen = []

    def field(t, y):
        seen.append(len(y))
        return -y * y[:, 1:].abs()

    y0 = torch.tensor([[1.0, 0.1], [1.0, 30.0], [1.0, 5.0]])
    solution = solve(field, y0, control=PerSample(rtol=1e-3, atol=1e-3))
    assert sum(seen) == int(solution.stats.evaluations.sum())
    assert seen[-1] < 3


@pytest.mark.parametrize("control", [PerSample, BatchCoupled])
@pytest.mark.parametrize("end", ["clip", "interpolate"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_replay_is_the_same_solve(method, end, control):
    field, y0 = PairField(torch.float32), (images(4, 4, torch.float32), images(4, 2, torch.float32))
    settings = {"rtol": 0.01, "atol": 0.01, "end": end}
    first = leaf(y0)
    made = solve(field, first, method=method, control=control(**settings))
    again = leaf(y0)
    replayed = solve(field, again, method=method, control=Replay(grid=made.grid))
    if control is BatchCoupled:
        assert all(torch.equal(a, b) for a, b in zip(made.y1, replayed.y1, strict=True))
    # Own grids replay without the refused attempts, so the chunks that a convolution sees differ, and its rounding
    # with them.
    assert apart(replayed.y1, made.y1) < 1e-6
    assert replayed.stats.accepted.tolist() == made.stats.accepted.tolist()
    assert apart(gradients(replayed.y1, again, field.weight), gradients(made.y1, first, field.weight)) < 1e-5


def test_replay_backwards_in_time():
    y0 = torch.tensor([[1.0, 0.0], [3.0, -2.0]], dtype=torch.float64)
    made = solve(rotation, y0, t0=1.0, t1=-1.0, control=PerSample(rtol=1e-4, atol=1e-4))
    assert apart(solve(rotation, y0, t0=1.0, t1=-1.0, control=Replay(grid=made.grid)).y1, made.y1) < 1e-14


def test_a_shared_grid_replays_on_any_batch_and_an_own_grid_does_not():
    field, y0 = ConvField(3), images(6, 3)
    shared = solve(field, y0, control=BatchCoupled(rtol=0.01, atol=0.01)).grid
    part = solve(field, y0[:2], control=Replay(grid=shared)).y1
    assert apart(part, solve(field, y0, control=Replay(grid=shared)).y1[:2]) < 1e-12
    own = solve(field, y0, control=PerSample(rtol=0.01, atol=0.01)).grid
    with pytest.raises(BadInput, match="6 rows"):
        solve(field, y0[:2], control=Replay(grid=own))


def test_the_grid_tells_what_was_done():
    y0 = torch.tensor([[1.0, 0.0], [30.0, -20.0]], dtype=torch.float64)
    for control in (PerSample(rtol=1e-5, atol=1e-5), BatchCoupled(rtol=1e-5, atol=1e-5)):
        grid = solve(rotation, y0, t0=0.5, t1=3.0, control=control).grid
        for row in range(len(grid.steps)):
            n = int(grid.steps[row])
            t, h = grid.t[row, :n], grid.h[row, :n]
            assert float(t[0]) == 0.5
            assert apart(t[:-1] + h[:-1], t[1:]) < 1e-15
            assert float(t[-1]) < 3.0 <= float(t[-1] + h[-1])
            assert bool((grid.error[row, :n] <= 1).all())
    clipped = solve(rotation, y0, control=BatchCoupled(rtol=1e-5, atol=1e-5, end="clip")).grid
    assert float(clipped.t[0, -1] + clipped.h[0, -1]) == pytest.approx(1.0, abs=1e-15)
    fixed = solve(rotation, y0, method=RK4, control=Fixed(steps=4))
    assert fixed.grid.h.tolist() == [[0.25] * 4]
    assert fixed.stats.evaluations.tolist() == [16, 16]


def test_fixed_needs_a_step():
    for steps in (0, 1.5, True):
        with pytest.raises(BadInput, match="at least 1"):
            Fixed(steps=steps)


def test_a_replay_needs_a_grid():
    with pytest.raises(BadInput, match="'grid' of Replay"):
        Replay(grid="dopri5")
