"""Bounds on Runge-Kutta steps: against polynomials of matrices, Jacobians of the steps themselves, and a control."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from verigrad.certificates.field_range import FieldRange, field_range
from verigrad.certificates.stability import block_gain, largest, majorant, stability_function, step_gain, variation
from verigrad.core.errors import BadInput
from verigrad.models.activations import ACTIVATIONS
from verigrad.models.conv_fields import ConvField
from verigrad.models.fields import Field, SkewConvField, SkewLinearField
from verigrad.models.ode_block import METHODS, ODEBlock, named_solver
from verigrad.solvers import RK4, Implicit
from verigrad.solvers.tableau import DOPRI5, EULER, MIDPOINT, RK4_38, Tableau

EXPLICIT = [method for method in METHODS.values() if isinstance(method, Tableau)]


def solver(method: str = "euler", steps: int = 1):
    return named_solver(method=method, tol=0.1, control="batch", steps=steps, grid="all")


def skew_linear(activation: str, variant: str, gamma: float, size: float, seed: int = 0) -> SkewLinearField:
    torch.manual_seed(seed)
    field = SkewLinearField(4, 3, gamma=gamma, variant=variant, activation=activation).double()
    with torch.no_grad():
        field.weight.copy_(size * torch.linalg.qr(torch.randn(4, 3, dtype=torch.float64))[0])
    return field


def stretch(block: ODEBlock, x: Tensor) -> float:
    """The largest ‖Jacobian‖₂ of a block at these inputs (B, ...): a lower bound on its Lipschitz constant."""

    def one(image: Tensor) -> Tensor:
        return block(image[None]).flatten()

    found = [torch.autograd.functional.jacobian(one, image).reshape(-1, image.numel()) for image in x]
    return max(float(torch.linalg.matrix_norm(jacobian, 2)) for jacobian in found)


def whole_step(field: Field, method: Tableau, h: float, state: Tensor) -> float:
    """‖Jacobian‖₂ of one step at a state (D,), on the whole state, written out stage by stage."""

    def step(y: Tensor) -> Tensor:
        stages: list[Tensor] = []
        for row in method.a:
            at = y + h * sum((a * k for a, k in zip(row, stages, strict=False)), torch.zeros_like(y))
            stages.append(field(torch.zeros(()), at[None])[0])
        return y + h * sum((b * k for b, k in zip(method.b, stages, strict=True)), torch.zeros_like(y))

    return float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(step, state), 2))


def test_the_classical_method_has_the_series_of_the_exponential() -> None:
    series = [1 / math.factorial(k) for k in range(5)]
    for method in (RK4, RK4_38):
        assert stability_function(method) == pytest.approx(series)
    assert majorant(RK4) == pytest.approx(series)
    # Its negative weights make the 3/8 rule's larger: |b|ᵀ|A|1 = 1/8·0 + 3/8·1/3 + 3/8·4/3 + 1/8·3.
    assert majorant(RK4_38)[2] == pytest.approx(1.0)
    assert stability_function(EULER) == [1.0, 1.0]
    assert stability_function(MIDPOINT) == pytest.approx([1.0, 1.0, 0.5])


@pytest.mark.parametrize("method", EXPLICIT, ids=lambda method: method.name)
def test_no_method_passes_its_order_and_its_majorant(method: Tableau) -> None:
    R, R_hat = stability_function(method), majorant(method)
    exact = [1 / math.factorial(k) for k in range(method.order + 1)]
    assert R[: method.order + 1] == pytest.approx(exact, abs=1e-9)
    assert all(abs(r) <= r_hat + 1e-12 for r, r_hat in zip(R, R_hat, strict=True))


@pytest.mark.parametrize("method", EXPLICIT, ids=lambda method: method.name)
@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_step_of_a_linear_field_has_the_norm_of_its_polynomial(method: Tableau, gamma: float) -> None:
    """With identity activation a step is R(hB): the bound is its norm, where the largest |R| is at ‖W‖."""
    for size in (0.3, 2.0, 9.0):
        field = skew_linear("identity", "paper", gamma, size)
        W = field.weight.detach().numpy()
        B = np.block([[np.zeros((4, 4)), W], [-W.T, np.zeros((3, 3))]]) - gamma * np.eye(7)
        power, polynomial = np.eye(7), np.zeros((7, 7))
        for coefficient in stability_function(method):
            polynomial, power = polynomial + coefficient * power, power @ (0.5 * B)
        norm = float(np.linalg.norm(polynomial, 2))
        found = field_range(field, (4,), "l2")
        bound = step_gain(method, 0.5, found)
        assert norm <= bound
        omega = np.linspace(0, 0.5 * size, 20001)
        line = np.abs(np.polyval(stability_function(method)[::-1], -0.5 * gamma + 1j * omega))
        assert bound == pytest.approx(line.max(), rel=1e-6)
        if line.argmax() == 20000:  # all singular values of W are `size`
            assert bound == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_no_step_stretches_more_than_its_bound(activation: str, variant: str) -> None:
    draw = torch.Generator().manual_seed(1)
    for gamma, size in ((0.0, 0.5), (0.0, 4.0), (0.6, 2.0)):
        field = skew_linear(activation, variant, gamma, size)
        found = field_range(field, (4,), "l2")
        for method in (EULER, MIDPOINT, RK4_38, DOPRI5):
            states = 3 * torch.randn(6, 7, generator=draw, dtype=torch.float64)
            measured = max(whole_step(field, method, 0.5, state) for state in states)
            assert measured <= step_gain(method, 0.5, found)


def test_the_spread_about_the_centre_is_needed() -> None:
    """A control: the centre alone, as if LeakyReLU were linear, is passed by the steps themselves."""
    draw = torch.Generator().manual_seed(1)
    field = skew_linear("leaky_relu", "paper", 0.0, 2.0)
    found = field_range(field, (4,), "l2")
    without = found._replace(spread=0.0)
    states = torch.randn(40, 7, generator=draw, dtype=torch.float64)
    measured = max(whole_step(field, EULER, 0.5, state) for state in states)
    assert step_gain(EULER, 0.5, without) < measured <= step_gain(EULER, 0.5, found)


def test_the_centre_is_worth_its_trouble() -> None:
    """LeakyReLU, Euler: √(1 + (mx)²) + dx against 1 + x, with m, d = 0.505, 0.495 and x = h‖W‖."""
    found = field_range(skew_linear("leaky_relu", "paper", 0.0, 2.0), (4,), "l2")
    x = 0.5 * 2.0
    assert step_gain(EULER, 0.5, found) == pytest.approx(math.hypot(1, 0.505 * x) + 0.495 * x, rel=1e-6)
    assert step_gain(EULER, 0.5, found) < 1 + x


def test_the_counterexample_to_stability_is_inside() -> None:
    """y' = σ(Wz), z' = σ(−Wy), LeakyReLU, W = 5π, takes (0, 1) to (10, 0) over [0, 1] (docs/math/stability.md)."""
    field = SkewLinearField(1, 1, activation="leaky_relu", variant="paper").double()
    with torch.no_grad():
        field.weight.fill_(5 * math.pi)
    found = field_range(field, (1,), "l2")
    assert math.exp(found.growth) > 10
    assert step_gain(RK4, 0.01, found) ** 100 > 10


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4", "dopri5"])
def test_blocks_of_convolutions_stay_within_their_bound(method: str) -> None:
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(2)
    for field in (
        SkewConvField(2, 3, variant="paper", activation="tanh"),
        SkewConvField(2, 5, stride=2, variant="paper", gamma=0.3),
        SkewConvField(2, 4, variant="released"),
        ConvField(2, norm="none"),
        ConvField(4, groups=2),
    ):
        field = field.double()
        channels = field.in_channels if isinstance(field, SkewConvField) else field.convolutions[0].out_channels
        fixed = solver("euler", 3)
        fixed = type(fixed)(method=METHODS[method], control=fixed.control, gradient=fixed.gradient)
        block = ODEBlock(field, fixed)
        found = block_gain(block, (channels, 4, 4), "l2")
        assert found.proved
        x = torch.rand(3, channels, 4, 4, generator=draw, dtype=torch.float64)
        assert stretch(block, x) <= found.value


@pytest.mark.parametrize(("channels", "stride"), [((2, 3), 1), ((2, 4), 2), ((3, 2), 1), ((1, 4), 2)])
def test_the_start_of_a_feature_block_has_its_norm(channels: tuple[int, int], stride: int) -> None:
    """Both parts of the state are copies of the input: ‖(x, z)‖ ≤ √(copies + 1) ‖input‖, and no less will do."""
    field = SkewConvField(*channels, stride=stride, variant="paper")
    given = (channels[0], 4, 4)
    eye = torch.eye(math.prod(given)).reshape(-1, *given)
    start = torch.cat([part.flatten(1) for part in field.initial(eye)], 1)
    assert field_range(field, given, "l2").start == pytest.approx(float(torch.linalg.matrix_norm(start, 2)))


def test_rows_of_the_variation_of_constants() -> None:
    """(A; b)(I − zA)⁻¹ at a number z, against the inverse itself; every stage method of the house."""
    for method in EXPLICIT:
        A = np.zeros((method.stages, method.stages))
        for i, row in enumerate(method.a):
            A[i, : len(row)] = row
        z = 0.3 - 0.7j
        expected = np.vstack([A, method.b]) @ np.linalg.inv(np.eye(method.stages) - z * A)
        found = [sum(row[k] * z**k for k in range(len(row))) for row in variation(method)]
        assert np.allclose(found, expected)


def test_the_linf_bound_holds_too() -> None:
    torch.manual_seed(0)
    for field, given in (
        (SkewConvField(2, 3, variant="paper", activation="tanh"), (2, 4, 4)),
        (SkewLinearField(5, 3, gamma=0.2), (5,)),
    ):
        block = ODEBlock(field.double(), solver("rk4", 2))
        x = torch.randn(*given, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda image, block=block: block(image[None]).flatten(), x)
        rows = jacobian.reshape(-1, x.numel()).abs().sum(1)
        assert float(rows.max()) <= block_gain(block, given, "linf").value


def test_implicit_steps_of_a_linear_field() -> None:
    """1 / |1 − hλ| and |(1 + hλ/2)/(1 − hλ/2)| at λ = −γ + iω; not proved, since the stages are iterated."""
    field = skew_linear("identity", "paper", 0.5, 2.0)
    for name, gain in (
        ("backward_euler", lambda z: 1 / abs(1 - z)),
        ("implicit_midpoint", lambda z: abs((2 + z) / (2 - z))),
    ):
        assert isinstance(METHODS[name], Implicit)
        found = block_gain(ODEBlock(field, solver(name, 1)), (4,), "l2")
        assert not found.proved
        assert "iteration" in found.why
        assert max(gain(complex(-0.5, w)) for w in np.linspace(0, 2, 200)) <= found.value


def test_a_block_on_an_adaptive_grid_is_not_proved() -> None:
    field = skew_linear("identity", "paper", 0.5, 2.0)
    found = block_gain(ODEBlock(field, solver("dopri5")), (4,), "l2")
    assert not found.proved
    assert "grid" in found.why or "steps" in found.why
    assert found.value == pytest.approx(math.exp(-0.5))  # of the exact flow: the norm of e^B


def test_an_unknown_field_is_refused() -> None:
    class Other(Field):
        def forward(self, t, state):
            return -state

        def initial(self, x):
            return x

        def output(self, state):
            return state

    with pytest.raises(BadInput, match="Other"):
        field_range(Other(), (4,), "l2")


def test_huge_constants_overflow_to_infinity() -> None:
    huge = FieldRange(1.0, 1e200, 1e200, 0.0, 0.0, 1e200, True)
    assert step_gain(RK4, 1.0, huge) == math.inf
    assert largest([1.0, 1.0], 0.0, 1e300) == math.inf
