"""The walk is the solve, and what is measured on it agrees with closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.dynamics.error_growth import error_growth, residual_error_growth, step_lipschitz
from verigrad.models.dynamics.lyapunov import lyapunov_exponents, stretch, tangent_map
from verigrad.models.dynamics.stability import abscissas, norm_growth, stability
from verigrad.models.dynamics.trajectory import trajectory, walked
from verigrad.models.fields import Field
from verigrad.models.networks.sonet import SONet
from verigrad.models.ode_block import RELEASED, ODEBlock, Solver, named_solver
from verigrad.solvers import (
    BACKWARD_EULER,
    DOPRI5,
    EULER,
    HEUN2,
    RK4,
    BatchCoupled,
    Direct,
    Fixed,
    PerSample,
    Status,
    solve,
)
from verigrad.solvers.stages import Stages
from verigrad.solvers.step import interpolated

F64 = torch.float64
A = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, -0.5, 1.0], [0.0, 0.3, 0.2]], dtype=F64)


def field(t: Tensor, y: Tensor) -> Tensor:
    return y @ A.T


def starts(batch: int = 4, dim: int = 3) -> Tensor:
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(3), dtype=F64)


def tiny_sonet() -> SONet:
    torch.manual_seed(0)
    return SONet(8, (1, 1, 1, 1), in_channels=1).double().eval()


@pytest.mark.parametrize("end", ["clip", "interpolate"])
@pytest.mark.parametrize("kind", [BatchCoupled, PerSample])
@pytest.mark.parametrize("method", [DOPRI5, HEUN2])
def test_the_walk_ends_where_the_solve_did(method, kind, end):
    """With a field that uses time, and samples of different numbers of steps under PerSample."""

    def driven(t: Tensor, y: Tensor) -> Tensor:
        return y.sin() * 3 + (t[:, None] if t.dim() else t)

    y0 = starts() * torch.tensor([[0.1], [1.0], [3.0], [10.0]], dtype=F64)
    found = solve(driven, y0, t0=-1.0, t1=2.0, method=method, control=kind(rtol=1e-2, atol=1e-2, end=end))
    path = walked(driven, y0, found, method, t0=-1.0, t1=2.0)
    torch.testing.assert_close(path.y[-1][0], found.y1)
    torch.testing.assert_close(path.y[0][0], y0)
    assert path.t.shape == (4, len(path.y))
    assert (path.t[:, 0] == -1.0).all()
    assert (path.t[:, -1] == 2.0).all()
    if kind is PerSample:
        assert len(set(found.grid.steps.tolist())) > 1
        few = path.rows(torch.tensor([2, 0]))
        torch.testing.assert_close(norm_growth(few), norm_growth(path)[[2, 0]])
        torch.testing.assert_close(stretch(few).factor, stretch(path).factor[[2, 0]])


def test_states_on_the_way_are_those_of_the_discrete_method():
    """Euler by hand: y_n = (I + hA)^n y0."""
    y0 = starts()
    path = walked(field, y0, solve(field, y0, method=EULER, control=Fixed(steps=4)), EULER)
    for n, y in enumerate(path.y):
        wanted = y0 @ torch.linalg.matrix_power(torch.eye(3, dtype=F64) + A / 4, n).T
        torch.testing.assert_close(y[0], wanted)
        torch.testing.assert_close(norm_growth(path)[:, n], wanted.norm(dim=1) / y0.norm(dim=1))


@pytest.mark.parametrize("block", ["stem", "stages.1.0", "classifier"])
def test_a_block_of_a_model_is_walked_as_the_model_walks_it(block):
    model, x = tiny_sonet(), torch.rand(3, 1, 8, 8, dtype=F64)
    seen: list[Tensor] = []
    part = model.get_submodule(block)
    handle = part.register_forward_hook(lambda _, given, out: seen.append(out.detach()))
    model(x)
    handle.remove()
    path = trajectory(model, x, block=block)
    state = path.y[-1] if block != "classifier" else path.y[-1][0]
    torch.testing.assert_close(part.field.output(state), seen[0])
    assert not part._forward_pre_hooks
    assert part.watch is None


def test_a_trajectory_outlives_changes_of_the_model():
    model, x = tiny_sonet(), torch.rand(2, 1, 8, 8, dtype=F64)
    path = trajectory(model, x, block="stem")
    before = stretch(path, iterations=3).factor
    with torch.no_grad():
        model.stem.field.kernel.zero_()
    torch.testing.assert_close(stretch(path, iterations=3).factor, before, rtol=0, atol=0)


def test_samples_that_were_not_solved_stay_where_they_stopped():
    def blows_up(t: Tensor, y: Tensor) -> Tensor:
        return y.square()  # 1 / (1/y0 - t)

    y0 = torch.tensor([[0.5], [2.0]], dtype=F64)
    found = solve(blows_up, y0, control=PerSample(rtol=1e-3, atol=1e-3, max_steps=30))
    path = walked(blows_up, y0, found, DOPRI5)
    assert path.status.tolist() == [int(Status.DONE), int(Status.TOO_MANY_STEPS)]
    assert float(path.t[1, -1]) < 0.51
    torch.testing.assert_close(path.y[-1][0], found.y1)


def test_a_start_at_zero_has_infinite_growth_once_it_moves():
    y0 = torch.zeros(1, 1, dtype=F64)
    found = solve(lambda t, y: y + 1, y0, method=EULER, control=Fixed(steps=2))
    assert norm_growth(walked(lambda t, y: y + 1, y0, found, EULER)).tolist() == [[1.0, math.inf, math.inf]]


def test_stability_of_a_linear_field_is_that_of_its_matrix():
    y0 = starts()
    path = walked(field, y0, solve(field, y0, control=PerSample(rtol=1e-6, atol=1e-6)), DOPRI5)
    found = stability(path)
    full = torch.ones_like(path.t)
    torch.testing.assert_close(found.log_norm, torch.linalg.eigvalsh((A + A.T) / 2)[-1] * full)
    torch.testing.assert_close(found.norm, torch.linalg.matrix_norm(A, 2) * full)
    right = abscissas(path)
    torch.testing.assert_close(right.value, torch.linalg.eigvals(A).real.max() * full)
    assert right.converged.all()
    # d/dt log ‖y‖ ≤ μ₂, and the stretch of the flow is the norm of its matrix
    assert (found.growth <= torch.exp(found.log_norm * found.t) * (1 + 1e-5)).all()
    exact = torch.linalg.matrix_norm(torch.linalg.matrix_exp(A), 2)
    stretched = stretch(path)
    torch.testing.assert_close(stretched.factor, exact.expand(4), rtol=1e-5, atol=0)
    torch.testing.assert_close(stretched.exponent, exact.log().expand(4), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("control", [RELEASED.control, PerSample(rtol=0.1, atol=0.1)])
def test_the_tangent_map_is_the_derivative_of_the_walk(control):
    """Against central differences of the walk along the same steps, interpolated end included."""

    def bent(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(field(t, y))

    y0, v = starts(), torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=F64)
    found = solve(bent, y0, control=control)
    path, h = walked(bent, y0, found, DOPRI5), 1e-6
    ends = [walked(bent, y0 + sign * h * v, found, DOPRI5).y[-1][0] for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * h)
    assert (tangent_map(path).push(v) - difference).norm() < 1e-7 * difference.norm()


def test_lyapunov_exponents_of_a_linear_field_are_real_parts_of_eigenvalues():
    y0, T = starts(2), 40.0
    B = torch.tensor([[0.1, 5.0, 0.0], [0.0, -0.5, 1.0], [0.0, 0.0, -1.0]], dtype=F64)

    def triangular(t: Tensor, y: Tensor) -> Tensor:
        return y @ B.T

    found = solve(triangular, y0, t1=T, method=RK4, control=Fixed(steps=400))
    exponents = lyapunov_exponents(walked(triangular, y0, found, RK4, t1=T), count=3)
    wanted = torch.tensor([0.1, -0.5, -1.0], dtype=F64).expand(2, 3)
    torch.testing.assert_close(exponents, wanted, rtol=0, atol=4 / T)
    torch.testing.assert_close(exponents.sum(1), B.trace().expand(2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("control", [BatchCoupled(rtol=1e-2, atol=1e-2), PerSample(rtol=1e-2, atol=1e-2, end="clip")])
@pytest.mark.parametrize("method", [HEUN2, DOPRI5])
def test_all_exponents_together_are_the_volume_that_the_walk_makes(method, control):
    """Σ = log |det Dφ| / T, exactly, also where what a step hands on is not f(y), as with adaptive Heun."""

    def bent(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(field(t, y)) - 0.1 * y

    y0 = starts()
    path = walked(bent, y0, solve(bent, y0, t1=3.0, method=method, control=control), method, t1=3.0)
    assert len(path.hops) > 2
    volume = torch.linalg.det(tangent_map(path).dense()).abs().log() / 3.0
    torch.testing.assert_close(lyapunov_exponents(path, count=3).sum(1), volume, rtol=1e-8, atol=1e-10)


def test_the_lorenz_attractor_has_the_exponents_of_the_literature():
    """σ = 10, ρ = 28, β = 8/3: the largest is 0.906 (Sprott 2003), and all three sum to −(σ + 1 + β)."""

    def lorenz(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = y.unbind(1)
        return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)

    middle = torch.tensor([0.0, 0.0, 25.0], dtype=F64)
    y0 = 8 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=F64) + middle
    settled = solve(lorenz, y0, t1=12.0, method=RK4, control=Fixed(steps=800)).y1
    found = solve(lorenz, settled, t1=6.0, method=RK4, control=Fixed(steps=400))
    path = walked(lorenz, settled, found, RK4, t1=6.0)
    first = replace(path, hops=path.hops[:100], t=path.t[:, :101], y=path.y[:101])
    # Without the time in which the random tangents turn into the fastest direction.
    before, whole = (lyapunov_exponents(part).mean() for part in (first, path))
    assert float((6.0 * whole - 1.5 * before) / 4.5) == pytest.approx(0.906, abs=0.05)
    assert float(lyapunov_exponents(first, count=3).sum(1).mean()) == pytest.approx(-(10 + 1 + 8 / 3), abs=0.02)


def test_the_error_of_eulers_method_meets_its_bound_where_it_is_tight():
    """y' = Ky is the worst case of Eq. (10): |e_n| = (1 + hK)^n |e_0|."""
    y0, eps = starts(), torch.full((4, 3), 1e-3, dtype=F64)
    found = solve(lambda t, y: 2.0 * y, y0, method=EULER, control=Fixed(steps=5))
    growth = error_growth(walked(lambda t, y: 2.0 * y, y0, found, EULER), y0 + eps)
    n = torch.arange(6)
    size = 1e-3 * math.sqrt(3)
    torch.testing.assert_close(growth.lipschitz, torch.full((4,), 2.0, dtype=F64))
    torch.testing.assert_close(growth.error, (size * 1.4**n).double().expand(4, 6), rtol=1e-6, atol=0)
    torch.testing.assert_close(growth.step_bound, (size * 1.4**n).double().expand(4, 6), rtol=1e-6, atol=0)
    torch.testing.assert_close(growth.exponential_bound, (size * torch.exp(0.4 * n)).double().expand(4, 6))


def test_the_exponential_bound_does_not_hold_for_every_runge_kutta_method():
    """y' = y, one Dopri5 step of length 1: R(1) = 2.71833 > e. Theorem 3.2 needs the method's own constant."""
    y0 = torch.ones(1, 1, dtype=F64)
    found = solve(lambda t, y: y, y0, method=DOPRI5, control=Fixed(steps=1))
    growth = error_growth(walked(lambda t, y: y, y0, found, DOPRI5), y0 + 1e-3)
    R = 1 + 1 + 1 / 2 + 1 / 6 + 1 / 24 + 1 / 120 + 1 / 600
    assert float(growth.error[0, 1] / growth.error[0, 0]) == pytest.approx(R, rel=1e-9)
    assert float(growth.error[0, 1]) > float(growth.exponential_bound[0, 1]) * (1 + 1e-5)
    assert float(growth.error[0, 1]) <= float(growth.step_bound[0, 1])


@pytest.mark.parametrize("method", [EULER, RK4, HEUN2, DOPRI5])
def test_the_lipschitz_constant_of_a_step_bounds_it(method):
    """Over random linear fields of norm K; for Euler and Runge's with weights ≥ 0 it is R(hK)."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        M = torch.randn(4, 4, generator=g, dtype=F64)
        y0 = torch.eye(4, dtype=F64)
        y1 = solve(lambda t, y, M=M: y @ M.T, y0, method=method, control=Fixed(steps=1)).y1
        K = torch.linalg.matrix_norm(M, 2)[None]
        bound = step_lipschitz(method, torch.ones(1, dtype=F64), K)
        assert torch.linalg.matrix_norm(y1, 2) <= bound * (1 + 1e-12)
    if method is not DOPRI5:
        series = {1: [1, 1], 2: [1, 1, 1 / 2], 4: [1, 1, 1 / 2, 1 / 6, 1 / 24]}[method.order]
        assert float(bound) == pytest.approx(sum(c * float(K) ** i for i, c in enumerate(series)))


def test_the_lipschitz_constant_of_an_interpolated_end_is_that_of_its_weights():
    """For small K it is 1 + hK Σ|w_i(x)|; the weights are read off the interpolant itself, a stage at a time."""
    zero, x = torch.zeros(1, dtype=F64), 0.3
    weights = []
    for i in range(DOPRI5.stages):
        stages = Stages((zero,), 1.0)
        stages.extend((zero + float(i == j),) for j in range(DOPRI5.stages))
        weights.append(abs(float(interpolated(DOPRI5, (zero,), stages, 1.0, x)[0])))
    bound = step_lipschitz(DOPRI5, zero + 2.0, zero + 1e-7, x)
    assert float(bound - 1) / 2e-7 == pytest.approx(sum(weights), rel=1e-5)


def test_the_measured_constant_looks_between_the_walks():
    """tanh is flat at ±2 and steepest halfway."""
    y = torch.full((1, 1), -2.0, dtype=F64)
    found = solve(lambda t, y: y.tanh(), y, method=EULER, control=Fixed(steps=1))
    assert float(error_growth(walked(lambda t, y: y.tanh(), y, found, EULER), -y).lipschitz) == pytest.approx(1.0)
    assert float(residual_error_growth([lambda y: y + y.tanh()], y, -y).lipschitz) == pytest.approx(1.0)


def test_errors_grow_along_a_models_block_and_stay_below_the_bound():
    model = tiny_sonet()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    noise = 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    path, other = (trajectory(model, images, block="stem") for images in (x, x + noise))
    growth = error_growth(path, other.y[0])
    start = [p - q for p, q in zip(path.y[0], other.y[0], strict=True)]
    wanted = torch.stack([part.flatten(1).square().sum(1) for part in start]).sum(0).sqrt()
    torch.testing.assert_close(growth.error[:, 0], wanted)
    assert (growth.error <= growth.step_bound * (1 + 1e-9)).all()


class Residual(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, y: Tensor) -> Tensor:
        return y + y @ self.weight.T


def test_a_residual_network_is_eulers_method():
    """Linear blocks of known norm: the measured hK is the norm of each, and the bounds are their products."""
    weights = [0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(i), dtype=F64) for i in range(3)]
    y, eps = starts(), 1e-3 * starts(4).flip(0)
    growth = residual_error_growth([Residual(w) for w in weights], y, y + eps)
    norms = torch.stack([torch.linalg.matrix_norm(w, 2) for w in weights])
    torch.testing.assert_close(growth.lipschitz, norms.max().expand(4))
    size = eps.norm(dim=1)
    torch.testing.assert_close(growth.step_bound[:, -1], size * (1 + norms).prod())
    torch.testing.assert_close(growth.exponential_bound[:, -1], size * norms.sum().exp())
    after = eps
    for n, w in enumerate(weights):
        torch.testing.assert_close(growth.error[:, n], after.norm(dim=1))
        after = after + after @ w.T
    assert (growth.error <= growth.step_bound * (1 + 1e-9)).all()


class Decay(Field):
    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return -state

    def initial(self, x: Tensor) -> Tensor:
        return x

    def output(self, state: Tensor) -> Tensor:
        return state


def test_a_model_that_is_a_block_has_no_name():
    block = ODEBlock(Decay(), named_solver(method="euler", tol=0.1, control="batch", steps=2, grid="all"))
    path = trajectory(block, torch.ones(1, 2, dtype=F64), block="")
    torch.testing.assert_close(path.y[-1][0], torch.full((1, 2), 0.25, dtype=F64))


def test_bad_input_is_refused():
    model, y0 = tiny_sonet(), starts()
    with pytest.raises(BadInput, match=r"no ODE block named 'head'.*'stem'"):
        trajectory(model, torch.rand(1, 1, 8, 8, dtype=F64), block="head")
    with pytest.raises(BadInput, match="none"):
        trajectory(nn.Linear(2, 2), torch.rand(1, 2), block="stem")
    implicit = Solver(method=BACKWARD_EULER, control=Fixed(steps=1), gradient=Direct(grid="frozen"))  # pyright: ignore
    with pytest.raises(BadInput, match="explicit"):
        trajectory(ODEBlock(Decay(), implicit), torch.ones(1, 2, dtype=F64), block="")
    found = solve(field, y0, method=EULER, control=Fixed(steps=2))
    with pytest.raises(BadInput, match="made by the method"):
        walked(field, y0, found, RK4)
    apart = solve(field, y0, control=PerSample(rtol=1e-2, atol=1e-2))
    with pytest.raises(BadInput, match="4 rows"):
        walked(field, y0[:2], apart, DOPRI5)
    path = walked(field, y0, found, EULER)
    for count in (0, 4):
        with pytest.raises(BadInput, match="'count'"):
            lyapunov_exponents(path, count=count)
    with pytest.raises(BadInput, match="at least one step"):
        lyapunov_exponents(walked(field, y0, solve(field, y0, t1=0.0), DOPRI5, t1=0.0))
    with pytest.raises(BadInput, match="form"):
        error_growth(path, y0[:, :2])
    with pytest.raises(BadInput, match="keep the shape"):
        residual_error_growth([nn.Linear(3, 2).double()], y0, y0)
