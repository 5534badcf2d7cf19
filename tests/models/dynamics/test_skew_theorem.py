"""Theorem 3.1 of Huang et al. 2020 (SONet), tested on systems small enough to check by hand.

The theorem: with W⁽¹⁾ = −W⁽²⁾ᵀ, σ' > 0 and γ > 0 small, y' = σ(By), B = A − γI, A skew, is stable in the sense of
Lyapunov, and, in the proof, ‖y(t)‖ ≤ ‖y(0)‖. The proof shows Re λ(J) < 0 at every state, which is true, and concludes.
It holds for linear σ; docs/math/stability.md says what holds for others.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.models.dynamics.jacobian import jacobian, log_norm, spectral_abscissa
from verigrad.models.dynamics.lyapunov import stretch
from verigrad.models.dynamics.stability import norms
from verigrad.models.dynamics.trajectory import walked
from verigrad.models.fields import SkewConvField, SkewLinearField
from verigrad.models.ode_block import RELEASED
from verigrad.solvers import DOPRI5, EULER, RK4, BatchCoupled, Fixed, PerSample, solve

F64 = torch.float64
LEAK = 0.01  # the slope of the blocks' LeakyReLU below zero


def skew(W: list[list[float]], gamma: float) -> Tensor:
    """B = (−γI, W; −Wᵀ, −γI)."""
    w = torch.tensor(W, dtype=F64)
    rows, columns = w.shape
    B = torch.zeros(rows + columns, rows + columns, dtype=F64)
    B[:rows, rows:], B[rows:, :rows] = w, -w.T
    return B - gamma * torch.eye(rows + columns, dtype=F64)


def leaky(u: Tensor) -> Tensor:
    return F.leaky_relu(u, LEAK)


def end(field, y0, t1: float = 1.0, tol: float = 1e-9):
    """The state at t1, to high accuracy."""
    control = PerSample(rtol=tol, atol=tol, end="clip", max_steps=100_000)
    return solve(field, y0, t1=t1, control=control).y1


def vector(*entries: float) -> Tensor:
    return torch.tensor([entries], dtype=F64)


def conv_block(W: list[list[float]], gamma: float) -> SkewConvField:
    """The block of the house with a single pixel: W (x by z) in the middle of its kernel, no norm."""
    w = torch.tensor(W, dtype=F64)
    field = SkewConvField(w.shape[1], w.shape[0], gamma=gamma, variant="paper").double().requires_grad_(False)
    field.kernel.zero_()
    field.kernel[:, :, 1, 1] = w
    return field


def pixels(*channels: float) -> Tensor:
    return torch.tensor(channels, dtype=F64).reshape(1, -1, 1, 1)


# What holds: linear σ, exact flow.


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_linear_block_shrinks_by_exactly_its_damping(gamma):
    """‖e^{tB} y‖ = e^{−γt} ‖y‖, since e^{tA} is orthogonal."""
    B = skew([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]], gamma)
    for t in (0.1, 1.0, 10.0):
        flow = torch.linalg.matrix_exp(t * B)
        torch.testing.assert_close(flow.T @ flow, math.exp(-2 * gamma * t) * torch.eye(5, dtype=F64))


def stability_function(weights: list[float], z: complex) -> complex:
    return sum(w * z**i for i, w in enumerate(weights))


SERIES = {
    EULER: [1, 1],
    RK4: [1, 1, 1 / 2, 1 / 6, 1 / 24],
    DOPRI5: [1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 600],
}


@pytest.mark.parametrize(("method", "omega"), [(EULER, 0.5), (RK4, 3.0), (DOPRI5, 1.1), (DOPRI5, 3.0)])
def test_explicit_methods_grow_on_it_where_their_stability_function_does(method, omega):
    """One step of length 1 at frequency ω multiplies the norm by |R(iω)|, which is above 1 here."""
    wanted = abs(stability_function(SERIES[method], 1j * omega))
    assert wanted > 1
    B = skew([[omega]], 0.0)
    y1 = solve(lambda t, y: y @ B.T, vector(0.6, 0.8), method=method, control=Fixed(steps=1)).y1
    assert float(y1.norm()) == pytest.approx(wanted, rel=1e-12)


def test_the_released_solver_grows_on_it_although_the_flow_does_not():
    """Dopri5 at tolerance 0.1: at ω = 10 to threefold; at tolerance 1e-9 the norm is kept."""
    B = skew([[10.0]], 0.0)
    loose = [solve(lambda t, y: y @ B.T, vector(1, 0), control=c).y1 for c in (RELEASED.control, clipped(0.1))]
    assert min(float(y.norm()) for y in loose) > 2.5
    assert float(end(lambda t, y: y @ B.T, vector(1, 0)).norm()) == pytest.approx(1.0, abs=1e-6)


def clipped(tol: float) -> BatchCoupled:
    return BatchCoupled(rtol=tol, atol=tol, end="clip")


# What does not: σ with two slopes.


def test_leaky_relu_multiplies_the_norm_by_ten():
    """x' = σ(5πz), z' = σ(−5πx) from (0, 1): x = 10 sin(πt/2), z = cos(πt/2), so (10, 0) at t = 1."""
    field = conv_block([[5 * math.pi]], 0.0)
    for t in (0.25, 0.5, 1.0):
        x, z = end(field, (pixels(0), pixels(1)), t1=t)
        assert float(x) == pytest.approx(10 * math.sin(math.pi * t / 2), abs=1e-6)
        assert float(z) == pytest.approx(math.cos(math.pi * t / 2), abs=1e-6)


@pytest.mark.parametrize(("gamma", "least"), [(0.01, 9.9), (0.1, 9.5), (1.0, 6.5)])
def test_damping_does_not_save_it(gamma, least):
    """Re λ(J) < 0 at every state, as the proof says, and yet the norm grows: its logarithmic norm is far above zero."""
    field = conv_block([[5 * math.pi]], gamma)
    start = (pixels(0), pixels(1))
    y1 = end(field, start)
    assert float(norms(y1)) > least
    for state in (start, y1, (pixels(0.5), pixels(0.5)), (pixels(-1), pixels(2))):
        J = jacobian(field, 0.0, state)
        assert float(spectral_abscissa(J).value) < 0
    J = jacobian(field, 0.0, (pixels(0.5), pixels(0.5)))
    half = (1 - LEAK) * 5 * math.pi / 2
    assert float(log_norm(J).value) > half - gamma


def test_both_starts_that_the_proof_names_break_their_bounds():
    """z(0) = x(0) promises ‖x(t)‖ ≤ √2 ‖x(0)‖, z(0) = 0 promises ‖x(t)‖ ≤ ‖x(0)‖."""
    field = conv_block([[5 * math.pi]], 0.01)
    x, _ = end(field, (pixels(1), pixels(1)))
    assert float(x) > 9.9
    x, _ = end(field, (pixels(-1), pixels(0)), t1=1.1)  # a tenth of the time to turn from (−1, 0) to (0, 1)
    assert float(x) > 9.9


def test_without_damping_a_block_that_changes_its_width_has_no_bound_at_all():
    """x₁' = σ(z), x₂' = σ(−z), z' = σ(x₂ − x₁): (x₁ + x₂)' = (1 − 0.01) |z|, while z swings on for ever.

    So from (0, 0, δ) the state goes as far as one likes, for every δ > 0: zero is not stable in the sense of Lyapunov.
    """
    field = conv_block([[1.0], [-1.0]], 0.0)
    far = [float(norms(end(field, (pixels(0, 0), pixels(1)), t1=t, tol=1e-7))) for t in (10.0, 30.0, 90.0)]
    assert far[0] > 5
    assert far[1] > 1.5 * far[0]
    assert far[2] > 2.5 * far[1]
    small = end(field, (pixels(0, 0), pixels(1e-3)), t1=90.0, tol=1e-10)
    assert float(norms(small)) == pytest.approx(1e-3 * far[2], rel=1e-3)


# Nor other σ.


def test_an_odd_and_smooth_sigma_does_not_save_it():
    """σ = tanh, 1 + 1, γ = 0 keeps cosh(x) cosh(z). From (3, 3) to z = 0: cosh x = cosh² 3, and x = 5.312 > 3√2."""
    B = skew([[1.0]], 0.0)
    far = max(float(end(lambda t, y: torch.tanh(y @ B.T), vector(3, 3), t1=t).norm()) for t in (3.0, 3.1, 3.2))
    assert far <= math.acosh(math.cosh(3) ** 2) * (1 + 1e-6)
    assert far > 1.24 * math.sqrt(18)
    damped = skew([[1.0]], 0.01)
    assert float(end(lambda t, y: torch.tanh(y @ damped.T), vector(3, 3), t1=3.1).norm()) > 1.23 * math.sqrt(18)


def test_a_sigma_that_is_not_zero_at_zero_has_no_equilibrium_there():
    """σ = softplus > 0: every entry rises for ever, from zero at the rate log 2."""
    B = skew([[1.0]], 0.1)
    y1 = end(lambda t, y: F.softplus(y @ B.T), vector(0, 0))
    assert (y1 > 0.3).all()


def test_neighbours_part_without_damping_even_where_the_norm_is_bounded():
    """tanh, 1 + 1: the period depends on the size, so neighbours fall out of step: δ grows with t."""
    B = skew([[1.0]], 0.0)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(y @ B.T)

    y0 = vector(3, 0)
    gaps = [
        float((end(field, y0 + 1e-4 * vector(1, 0), t1=t) - end(field, y0, t1=t)).norm()) for t in (0.0, 40.0, 160.0)
    ]
    assert gaps[1] > 10 * gaps[0]
    assert gaps[2] > 3 * gaps[1]


# What can be put in its place.


def potential(u: Tensor) -> Tensor:
    """V = Σ ∫₀ᵘ σ for LeakyReLU."""
    return (u.square() * torch.where(u > 0, 1.0, LEAK) / 2).sum(1)


@pytest.mark.parametrize("gamma", [0.0, 0.05, 1.0])
def test_the_potential_of_the_preactivations_never_grows(gamma):
    """V̇ = −γ ‖σ(u)‖² for u = By, so V(t) ≤ e^{−2γst} V(0), and ‖y(t)‖ ≤ √(1/s) cond(B) e^{−γst} ‖y(0)‖."""
    g = torch.Generator().manual_seed(0)
    B = skew(torch.randn(3, 3, generator=g, dtype=F64).tolist(), gamma)
    y = y0 = torch.randn(16, 6, generator=g, dtype=F64)
    before = potential(y0 @ B.T)
    grown = torch.zeros(16, dtype=torch.bool)
    for n in range(1, 9):
        y = end(lambda t, y: leaky(y @ B.T), y, t1=1.0)
        assert (potential(y @ B.T) <= before * math.exp(-2 * gamma * LEAK * n) * (1 + 1e-4)).all()
        bound = LEAK**-0.5 * float(torch.linalg.cond(B)) * math.exp(-gamma * LEAK * n)
        assert (y.norm(dim=1) <= bound * y0.norm(dim=1)).all()
        grown |= y.norm(dim=1) > y0.norm(dim=1)
    if gamma == 0.0:
        torch.testing.assert_close(potential(y @ B.T), before, rtol=1e-4, atol=0)
    if gamma < 1.0:
        assert grown.any()


# The classifier block, σ inside.


def classifier(weight: float, bias: tuple[float, float], gamma: float = 0.0) -> SkewLinearField:
    field = SkewLinearField(1, 1, gamma=gamma).double().requires_grad_(False)
    assert field.bias is not None
    field.weight.fill_(weight)
    field.bias.copy_(torch.tensor(bias, dtype=F64))
    return field


def test_the_classifier_block_without_biases_grows_tenfold_and_no_further():
    """Σ ∫ σ of the state itself is kept, so ‖y(t)‖ ≤ √(1/s) ‖y(0)‖ = 10 ‖y(0)‖, whatever W is.

    W = 5π from (1, 0): y = cos(πt/2), z = −10 sin(πt/2), so (0, −10) at t = 1.
    """
    field = classifier(5 * math.pi, (0.0, 0.0))
    y1 = end(field, vector(1, 0))
    torch.testing.assert_close(y1, vector(0, -10), rtol=0, atol=1e-6)
    starts = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for t in (0.3, 1.0, 3.0):
        y1 = end(field, starts, t1=t)
        assert (y1.norm(dim=1) <= 10 * starts.norm(dim=1) * (1 + 1e-6)).all()
        torch.testing.assert_close(potential(y1), potential(starts), rtol=1e-4, atol=0)


@pytest.mark.parametrize("start", [0.1, 1.0])
def test_biases_push_the_classifier_block_as_far_as_they_like(start):
    """With F > K a part of b₁ is outside of W's range and moves the state at constant speed: here W = (1, 0)ᵀ."""
    field = SkewLinearField(2, 1).double().requires_grad_(False)
    field.weight.copy_(torch.tensor([[1.0], [0.0]]))
    field.bias.copy_(torch.tensor([0.0, 7.0, 0.0]))
    for t in (1.0, 5.0):
        assert float(end(field, vector(0, 0, start), t1=t)[0, 1]) == pytest.approx(7.0 * t, rel=1e-6)


# The normalised block of the released code.


def test_the_released_block_moves_at_a_speed_that_does_not_know_its_state():
    """Every group of N(σ(...)) has root mean square 1: ‖f(y)‖ = √D wherever y is not about zero."""
    torch.manual_seed(0)
    field = SkewConvField(4, 8).double().requires_grad_(False)
    for size in (1.0, 1e3):
        y = field.initial(size * torch.randn(2, 4, 6, 6, dtype=F64))
        f = field(torch.zeros(()), y)
        entries = sum(part[0].numel() for part in y)
        # 1e-3: the eps of GroupNorm
        torch.testing.assert_close(norms(f), torch.full((2,), entries**0.5, dtype=F64), rtol=1e-3, atol=0)
    y = field.initial(1e-3 * torch.randn(2, 4, 6, 6, dtype=F64))
    y1 = end(field, y, t1=0.1, tol=1e-6)
    assert (norms(y1) > 4 * norms(y)).all()


def test_the_released_block_has_no_equilibrium_once_its_norms_have_biases():
    """f(0) = β, as after any step of training, for every W and γ."""
    field = SkewConvField(1, 1).double().requires_grad_(False).eval()
    field.norm_dx.bias.fill_(0.5)
    zero = torch.zeros(1, 1, 2, 2, dtype=F64)
    dx, dz = field(torch.zeros(()), (zero, zero))
    torch.testing.assert_close(dx, zero + 0.5)
    torch.testing.assert_close(dz, zero)


# And what a loose solver adds.


def test_a_loose_walk_stretches_more_than_any_flow_of_that_log_norm():
    """On the linear rotation the flow stretches nothing: ‖Dφ‖ = 1, where the walk of the released solver has more."""
    B = skew([[10.0]], 0.0)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return y @ B.T

    y0 = vector(1, 0)
    loose, tight = (solve(field, y0, control=c) for c in (RELEASED.control, clipped(1e-9)))
    assert float(stretch(walked(field, y0, loose, DOPRI5)).factor) > 2.5
    assert float(stretch(walked(field, y0, tight, DOPRI5)).factor) == pytest.approx(1.0, abs=1e-6)
    assert float(log_norm(jacobian(field, 0.0, y0)).value) == pytest.approx(0.0, abs=1e-12)
