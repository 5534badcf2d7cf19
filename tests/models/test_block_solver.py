"""Words name solvers; the implicit ones against their closed forms, Table 2's against torchdiffeq 0.0.1."""

import pytest
import torch
from oracles import torchdiffeq_0_0_1
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.block_solver import METHODS, Solver, named_solver
from verigrad.models.fields import SkewLinearField
from verigrad.models.ode_block import ODEBlock
from verigrad.solvers import Adjoint, Checkpointed, Direct, Fixed, Implicit, PerSample


def words(**changes) -> Solver:
    return named_solver(**{"method": "dopri5", "tol": 0.1, "control": "batch", "steps": 1, "grid": "all", **changes})


def linear_block(solver: Solver, gamma: float = 0.3) -> tuple[ODEBlock, Tensor]:
    """A small block under Eq. (4), and the matrix of its state."""
    torch.manual_seed(0)
    field = SkewLinearField(5, 3, gamma=gamma, activation="identity", variant="paper").double()
    matrix = -gamma * torch.eye(8, dtype=torch.float64)
    matrix[:5, 5:], matrix[5:, :5] = field.weight.detach(), -field.weight.detach().t()
    return ODEBlock(field, solver), matrix


FEATURES = torch.rand(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
START = torch.cat([FEATURES, torch.ones(4, 3, dtype=torch.float64)], 1)


@pytest.mark.parametrize(("method", "theta"), [("backward_euler", 1.0), ("implicit_midpoint", 0.5)])
@pytest.mark.parametrize(("steps", "t1"), [(1, 1.0), (4, 1.0), (4, 3.0)])
def test_an_implicit_block_is_the_rational_function_of_its_matrix(method: str, theta: float, steps: int, t1: float):
    """y1 = (1 - θhA)⁻¹ (1 + (1 - θ)hA) y, over and over."""
    block, matrix = linear_block(words(method=method, steps=steps, t1=t1))
    one = torch.eye(8, dtype=torch.float64)
    h = t1 / steps
    step = torch.linalg.solve(one - theta * h * matrix, one + (1 - theta) * h * matrix)
    want = START @ torch.linalg.matrix_power(step, steps).t()
    torch.testing.assert_close(block(FEATURES), want[:, 5:], rtol=1e-7, atol=1e-7)


def test_the_solve_ends_at_t1():
    block, matrix = linear_block(words(tol=1e-10, control="sample", t1=7.5))
    want = START @ torch.matrix_exp(7.5 * matrix).t()
    torch.testing.assert_close(block(FEATURES), want[:, 5:], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    ("method", "theirs", "tol"),
    [
        ("euler", "euler", 0.1),
        ("rk4", "rk4", 0.1),
        *((ours, theirs, tol) for ours, theirs in (("dopri5", "dopri5"), ("bosh3", "bosh3"), ("heun2", "adaptive_heun"))
          for tol in (0.1, 0.01, 0.001)),
    ],
)  # fmt: skip
def test_the_solvers_of_table_2_are_torchdiffeq_0_0_1_s(method: str, theirs: str, tol: float):
    block, matrix = linear_block(words(method=method, tol=tol))
    want = torchdiffeq_0_0_1().odeint(
        lambda t, y: y @ matrix.t(),
        START,
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        rtol=tol,
        atol=tol,
        method=theirs,
    )
    torch.testing.assert_close(block(FEATURES), want[1, :, 5:], rtol=1e-6, atol=1e-6)


def test_every_gradient_is_that_of_the_flow():
    """At a fine tolerance all three are the derivative of exp(A)."""
    for gradient in ("direct", "checkpointed", "adjoint"):
        block, matrix = linear_block(words(tol=1e-9, grid="frozen", gradient=gradient))
        x = FEATURES.clone().requires_grad_()
        (got,) = torch.autograd.grad(block(x).sum(), x)
        want = torch.matrix_exp(matrix)[5:, :5].sum(0).expand(4, 5)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_words_become_these_objects():
    assert words(gradient="checkpointed").gradient == Checkpointed()
    assert words(gradient="adjoint", tol=0.2).gradient == Adjoint(rtol=0.2, atol=0.2)
    assert (words(t1=100).t0, words(t1=100).t1) == (0.0, 100.0)
    for name, method in METHODS.items():
        solver = words(method=name, control="sample", steps=3)
        fixed = isinstance(method, Implicit) or method.error is None
        assert isinstance(solver.control, Fixed if fixed else PerSample)
        assert solver.gradient == Direct(grid="all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t1": 0.0}, "'t1' must be a finite number above 0. Got 0.0"),
        ({"t1": float("inf")}, "'t1' .* Got inf"),
        ({"gradient": "exact"}, "'direct', 'checkpointed' or 'adjoint'. Got 'exact'"),
        ({"gradient": "adjoint", "method": "backward_euler"}, "backward_euler is differentiated by 'direct' only"),
        ({"method": "adaptive_heun"}, "must be one of euler, .*heun2.* Got 'adaptive_heun'"),
        ({"gradient": "direct", "grid": "some"}, "Got 'some'"),
        ({"method": "implicit_midpoint", "steps": 0}, "Got 0"),
    ],
)
def test_what_cannot_be_named_is_told(changes, message):
    with pytest.raises(BadInput, match=message):
        words(**changes)
