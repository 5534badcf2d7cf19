"""A block solves its field, tells what it did when asked, and never passes off an unsolved sample as solved."""

import pytest
import torch
from torch import Tensor

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.models.fields import Field
from verigrad.models.networks.sonet import SONet
from verigrad.models.ode_block import METHODS, RELEASED, ODEBlock, Solver, named_solver, recording
from verigrad.solvers import (
    DOPRI5,
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    BatchCoupled,
    Direct,
    Fixed,
    Implicit,
    PerSample,
    Status,
)


class Growth(Field):
    """y' = a y: y(1) = y(0) exp a; a sample above `limit` has no derivative."""

    def __init__(self, limit: float = 100.0) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return torch.where(state > self.limit, torch.nan, -state)

    def initial(self, x: Tensor) -> Tensor:
        return x

    def output(self, state: Tensor) -> Tensor:
        return state


FINE = Solver(method=DOPRI5, control=PerSample(rtol=1e-8, atol=1e-8), gradient=Direct())


def test_a_block_is_the_solution():
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(ODEBlock(Growth(), FINE)(x), x * torch.exp(torch.tensor(-1.0, dtype=torch.float64)))


def test_a_sample_that_cannot_be_solved_is_nan_and_the_others_are_not():
    x = torch.tensor([[1.0], [5.0]], dtype=torch.float64, requires_grad=True)
    y = ODEBlock(Growth(limit=4.0), FINE)(x)
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1]).all()
    (gradient,) = torch.autograd.grad(y[0].sum(), x)
    assert torch.isfinite(gradient).all()


def test_recording_gives_the_walk_of_each_block_and_ends():
    model = SONet(4, (1, 1, 1, 1), in_channels=1)
    with recording(model) as walks, torch.no_grad():
        model(torch.rand(3, 1, 8, 8))
    assert sorted(walks) == ["classifier", *(f"stages.{i}.0" for i in range(4)), "stem"]
    for walk in walks.values():
        assert walk.grid.shared
        assert float(walk.grid.t[0, 0]) == 0.0
        assert float((walk.grid.t + walk.grid.h)[0, -1]) >= 1.0
        assert walk.status.tolist() == [Status.DONE] * 3
        assert bool((walk.stats.evaluations >= 8).all())
    seen = dict(walks)
    with torch.no_grad():
        model(torch.rand(3, 1, 8, 8))
    assert all(walks[name] is seen[name] for name in seen)


def test_the_defaults_are_torchdiffeq_0_0_1_s():
    assert named_solver(method="dopri5", tol=0.1, control="batch", steps=1, grid="all") == RELEASED
    assert RELEASED.control == BatchCoupled(rtol=0.1, atol=0.1, end="interpolate", law=TORCHDIFFEQ_0_0_1)


def test_words_name_solvers():
    solver = named_solver(method="rk4", tol=0.1, control="batch", steps=3, grid="frozen")
    assert (solver.method, solver.control) == (RK4_38, Fixed(steps=3))
    solver = named_solver(method="bosh3", tol=0.01, control="sample", steps=1, grid="first")
    assert solver.control == PerSample(rtol=0.01, atol=0.01, law=TORCHDIFFEQ_0_0_1)
    assert solver.gradient == Direct(grid="first")


@pytest.mark.parametrize("method", METHODS)
def test_every_named_method_runs(method: str):
    # The stage of an implicit method is found in one step without norms; they make the field steep.
    implicit = isinstance(METHODS[method], Implicit)
    model = SONet(4, (1, 1, 1, 1), in_channels=1, method=method, variant="paper" if implicit else "released")
    assert batch_coupled(model) == (getattr(METHODS[method], "error", None) is not None)
    with torch.no_grad():
        assert torch.isfinite(model(torch.rand(2, 1, 8, 8))).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "rk5"}, "must be one of euler, .* Got 'rk5'"),
        ({"control": "mine"}, "must be 'batch' or 'sample'. Got 'mine'"),
        ({"grid": "some"}, "Got 'some'"),
        ({"tol": -1.0}, "Got -1.0"),
        ({"method": "euler", "steps": 0}, "Got 0"),
    ],
)
def test_unknown_words_are_told(words, message):
    with pytest.raises(BadInput, match=message):
        SONet(4, (1, 1, 1, 1), **words)
