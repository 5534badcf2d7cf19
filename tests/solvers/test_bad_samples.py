"""A sample that cannot be solved costs its mates nothing: not their status, their steps or their gradient."""

import math

import pytest
import torch
from systems import leaf

from verigrad.solvers import Adjoint, BatchCoupled, Checkpointed, Direct, PerSample, Status, solve

BAD = torch.tensor([[1.0], [9.0], [2.0]], dtype=torch.float64)
OTHERS = [0, 2]
CONTROL = PerSample(rtol=1e-6, atol=1e-6)


class Decay(torch.nn.Module):
    """y' = −w·y, and NaN after `until` for samples that began above five; the NaN depends on w and y."""

    def __init__(self, until=0.3):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.until = until
        self.rows = []

    def forward(self, t, y):
        self.rows.append(len(y))
        time = t if t.dim() else t.expand(len(y))
        lost = ((y[:, 0] > 3) & (time > self.until))[:, None]
        return -self.w * y + torch.where(lost, math.inf, 0.0) * 0.0 * self.w * y


class Root(torch.nn.Module):
    """y' = −w √y."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t, y):
        return -self.w * torch.sqrt(y)


GRADIENTS = [
    Direct(),
    Direct(grid="first"),
    Direct(grid="all"),
    Checkpointed(),
    Checkpointed(every=1),
    Adjoint(rtol=1e-6, atol=1e-6),
]
each_gradient = pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)


@pytest.mark.parametrize("end", ["clip", "interpolate"])
@pytest.mark.parametrize("max_steps", [4, 6, 8, 20, 10_000])
def test_status_and_cost_are_those_of_a_solve_without_it(max_steps, end):
    control = PerSample(rtol=1e-6, atol=1e-6, end=end, max_steps=max_steps)
    together, alone = Decay(), Decay()
    a, b = solve(together, BAD, control=control), solve(alone, BAD[OTHERS], control=control)
    assert a.status[OTHERS].tolist() == b.status.tolist()
    assert bool(torch.stack(a.stats)[:, OTHERS].eq(torch.stack(b.stats)).all())
    assert a.y1[OTHERS].tolist() == b.y1.tolist()
    assert int(a.status[1]) == (Status.NOT_FINITE if max_steps > 500 else Status.TOO_MANY_STEPS)
    assert int((a.stats.accepted + a.stats.rejected)[1]) <= max_steps
    # The mates repeat one attempt of six stages when the sample first leaves them, and then go on without it.
    mates = sum(together.rows) - int(a.stats.evaluations[1])
    assert mates - sum(alone.rows) in (0, 12)


@each_gradient
@pytest.mark.parametrize("field", [Decay(), Decay(until=-1.0), Root()], ids=["after 0.3", "from the start", "root"])
def test_the_gradient_of_the_others_is_that_without_it(field, gradient):
    y0 = leaf(BAD) if isinstance(field, Decay) else leaf(BAD * torch.tensor([[1.0], [-1.0], [1.0]]))
    alone = leaf(y0[OTHERS])
    a = solve(field, y0, control=CONTROL, gradient=gradient)
    b = solve(field, alone, control=CONTROL, gradient=gradient)
    assert a.status.tolist() == [Status.DONE, Status.NOT_FINITE, Status.DONE]
    got = torch.autograd.grad((a.y1[OTHERS] ** 2).sum(), (y0, field.w))
    want = torch.autograd.grad((b.y1**2).sum(), (alone, field.w))
    assert float(got[0][1].abs()) == 0.0
    # The batch-coupled solve backwards of the adjoint has the same steps, since the bad sample takes no part in it.
    assert torch.allclose(got[0][OTHERS], want[0], rtol=1e-12, atol=0)
    assert torch.allclose(got[1], want[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=repr)
def test_a_missing_number_leaves_the_others_their_graph(gradient):
    y0 = leaf(torch.tensor([[1.0], [math.nan]], dtype=torch.float64))
    solution = solve(lambda t, y: -y, y0, control=CONTROL, gradient=gradient)
    assert solution.status.tolist() == [Status.DONE, Status.NOT_FINITE]
    (gradient,) = torch.autograd.grad(solution.y1[0].sum(), y0)
    assert gradient[:, 0].tolist() == pytest.approx([math.exp(-1), 0.0], rel=1e-4)


@pytest.mark.parametrize("control", [PerSample, BatchCoupled])
def test_adjoint_has_no_gradient_of_an_unfinished_sample(control):
    field, y0 = Decay(), leaf(BAD[OTHERS])
    solution = solve(
        field, y0, control=control(rtol=1e-8, atol=1e-8, max_steps=3), gradient=Adjoint(rtol=1e-6, atol=1e-6)
    )
    assert solution.status.tolist() == [Status.TOO_MANY_STEPS] * 2
    by_state, by_weight = torch.autograd.grad(solution.y1[0].sum(), (y0, field.w))
    assert math.isnan(float(by_state[0]))
    assert float(by_state[1]) == 0.0
    assert math.isnan(float(by_weight))


def test_an_overflow_of_the_error_alone_is_a_step_too_small():
    def jump(t, y):
        return torch.where(t[:, None] > 0.3, 1e30, 0.0).to(y) + 0 * y

    solution = solve(jump, torch.ones(1, 1), control=PerSample(rtol=0.0, atol=1e-20))
    assert solution.status.tolist() == [Status.STEP_TOO_SMALL]
    assert float(solution.y1.abs().max()) < 1e30
