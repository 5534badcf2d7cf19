"""The contract that every method and control meets, the oracles, and how awkward problems end."""

import math

import numpy as np
import pytest
import torch
from oracles import torchdiffeq_0_0_1, torchdiffeq_0_2_5
from scipy.integrate import solve_ivp
from systems import WRONG, ConvField, PairField, apart, column, fitted_order, gradients, images, leaf, rotated, rotation

from verigrad.core.errors import BadInput
from verigrad.solvers import (
    BACKWARD_EULER,
    BOSH3,
    DOPRI5,
    EULER,
    HEUN2,
    IMPLICIT_MIDPOINT,
    MIDPOINT,
    RK4,
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    TORCHDIFFEQ_0_2_5,
    TSIT5,
    BatchCoupled,
    Direct,
    Fixed,
    PerSample,
    Status,
    solve,
)

FIXED = [EULER, MIDPOINT, HEUN2, BOSH3, RK4, RK4_38, DOPRI5, TSIT5, BACKWARD_EULER, IMPLICIT_MIDPOINT]
# torchdiffeq 0.0.1 reads scalars from its graph; torch says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

ADAPTIVE = {"adaptive_heun": HEUN2, "bosh3": BOSH3, "dopri5": DOPRI5}
FIXED_STEPS = {"euler": EULER, "midpoint": MIDPOINT, "rk4": RK4_38, "heun2": HEUN2}
Y0 = torch.tensor([[1.0, 0.0], [0.3, -2.0], [-1.0, 1.0]], dtype=torch.float64)


def order_of(method):
    def end(n):
        return solve(rotation, Y0, t1=2.0, method=method, control=Fixed(steps=n)).y1

    return fitted_order(end, rotated(Y0, 2.0), (40, 80, 160))


@pytest.mark.parametrize("method", FIXED, ids=lambda m: m.name)
def test_order(method):
    assert order_of(method) == pytest.approx(method.order, abs=0.2)


def test_a_method_of_wrong_order_fails_the_order_test():
    assert abs(order_of(WRONG) - WRONG.order) > 1


@pytest.mark.parametrize("control", [PerSample, BatchCoupled])
@pytest.mark.parametrize(
    ("method", "end"),
    [(BOSH3, "clip"), (DOPRI5, "clip"), (TSIT5, "clip"), (DOPRI5, "interpolate"), (TSIT5, "interpolate")],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
def test_meets_the_tolerance_of_dop853(method, end, control):
    y0 = images(3, 2)
    field = ConvField(2)

    def flat(t, y):
        with torch.no_grad():
            return field(torch.tensor(t), torch.from_numpy(y).reshape(y0.shape)).reshape(-1).numpy()

    truth = solve_ivp(flat, (0, 1), y0.reshape(-1).numpy(), method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    for tol in (1e-5, 1e-8):
        solution = solve(field, y0, method=method, control=control(rtol=tol, atol=tol, end=end))
        assert solution.status.tolist() == [Status.DONE] * 3
        # An overshooting last step is interpolated to one order less, and so misses by more than the tolerance.
        slack = 50 if end == "clip" else 1000
        assert np.abs(solution.y1.detach().reshape(-1).numpy() - truth).max() < slack * tol


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("tol", [0.1, 1e-3])
@pytest.mark.parametrize("shape", ["tensor", "tuple"])
@pytest.mark.parametrize("version", ["0.0.1", "0.2.5"])
def test_batch_coupled_is_torchdiffeq(name, tol, shape, version):
    old = version == "0.0.1"
    library = torchdiffeq_0_0_1() if old else torchdiffeq_0_2_5()
    field, y0 = (ConvField(3), images(4, 3)) if shape == "tensor" else (PairField(), (images(4, 4), images(4, 2)))
    calls = [0]

    def counted(t, y):
        calls[0] += 1
        return field(t, y)

    theirs = leaf(y0)
    out = library.odeint(counted, theirs, torch.tensor([0.0, 1.0]), rtol=tol, atol=tol, method=name)
    out = out[1] if shape == "tensor" else tuple(part[1] for part in out)
    their_gradient = gradients(out, theirs, field.weight)
    evaluations, calls[0] = calls[0], 0

    ours = leaf(y0)
    control = BatchCoupled(rtol=tol, atol=tol, law=TORCHDIFFEQ_0_0_1 if old else TORCHDIFFEQ_0_2_5)
    solution = solve(
        counted, ours, method=ADAPTIVE[name], control=control, gradient=Direct(grid="all" if old else "first")
    )
    assert calls[0] == evaluations == int(solution.stats.evaluations[0])
    assert apart(solution.y1, out) < 1e-6
    assert apart(gradients(solution.y1, ours, field.weight), their_gradient) < 1e-5

    frozen = leaf(y0)
    same = solve(field, frozen, method=ADAPTIVE[name], control=control)
    assert apart(same.y1, solution.y1) == 0.0
    assert apart(gradients(same.y1, frozen, field.weight), their_gradient) > 1e-6


def test_the_two_laws_differ_on_a_tuple():
    field, y0 = PairField(), (images(4, 4) * 5, images(4, 2))
    first = [
        float(solve(field, y0, control=BatchCoupled(rtol=0.1, atol=0.1, law=law)).grid.h[0, 0])
        for law in (TORCHDIFFEQ_0_0_1, TORCHDIFFEQ_0_2_5)
    ]
    assert first[0] != pytest.approx(first[1], rel=1e-3)


@pytest.mark.parametrize("shape", ["tensor", "tuple"])
@pytest.mark.parametrize("name", FIXED_STEPS)
@pytest.mark.parametrize("version", ["0.0.1", "0.2.5"])
def test_fixed_steps_are_torchdiffeq(name, shape, version):
    if (name, version) == ("heun2", "0.0.1"):
        return  # which has none
    method = FIXED_STEPS[name]
    library = torchdiffeq_0_0_1() if version == "0.0.1" else torchdiffeq_0_2_5()
    field, y0 = (ConvField(3), images(4, 3)) if shape == "tensor" else (PairField(), (images(4, 4), images(4, 2)))
    theirs, ours = leaf(y0), leaf(y0)
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    out = library.odeint(field, theirs, t, method=name)
    out = out[-1] if shape == "tensor" else tuple(part[-1] for part in out)
    solution = solve(field, ours, method=method, control=Fixed(steps=3))
    assert apart(solution.y1, out) < 1e-12
    assert apart(gradients(solution.y1, ours, field.weight), gradients(out, theirs, field.weight)) < 1e-12


def test_float32_images_match_torchdiffeq():
    field, y0 = PairField(torch.float32), (images(4, 4, torch.float32), images(4, 2, torch.float32))
    theirs, ours = leaf(y0), leaf(y0)
    out = torchdiffeq_0_0_1().odeint(field, theirs, torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3, method="bosh3")
    out = tuple(part[1] for part in out)
    control = BatchCoupled(rtol=1e-3, atol=1e-3, law=TORCHDIFFEQ_0_0_1)
    solution = solve(field, ours, method=BOSH3, control=control, gradient=Direct(grid="all"))
    assert apart(solution.y1, out) < 1e-5
    assert apart(gradients(solution.y1, ours, field.weight), gradients(out, theirs, field.weight)) < 1e-3


def test_backwards_in_time_is_torchdiffeq():
    field, y0 = ConvField(3), images(4, 3)
    out = torchdiffeq_0_2_5().odeint(field, y0, torch.tensor([1.0, -0.5]), rtol=1e-4, atol=1e-4, method="dopri5")[1]
    solution = solve(field, y0, t0=1.0, t1=-0.5, control=BatchCoupled(rtol=1e-4, atol=1e-4))
    assert apart(solution.y1, out) < 1e-6
    assert bool((solution.grid.h < 0).all())
    there_and_back = solve(field, solution.y1, t0=-0.5, t1=1.0, control=PerSample(rtol=1e-9, atol=1e-9))
    assert apart(there_and_back.y1, y0) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype):
    y0 = Y0.to(dtype)
    solution = solve(rotation, y0, control=PerSample(rtol=0.05, atol=0.05))
    assert solution.y1.dtype == dtype
    assert apart(solution.y1.double(), rotated(Y0, 1.0)) < 0.1


def test_a_field_may_be_less_precise_than_its_state():
    solution = solve(lambda t, y: rotation(t, y).bfloat16(), Y0.float(), control=PerSample(rtol=0.05, atol=0.05))
    assert solution.y1.dtype == torch.float32
    assert apart(solution.y1.double(), rotated(Y0, 1.0)) < 0.1


def stiff(t, y):
    return -1e7 * (y - torch.cos(column(t, y)))


def lorenz(t, y):
    a, b, c = y.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


AWKWARD = {
    "stiff": (stiff, torch.ones(2, 1), 1.0, {Status.TOO_MANY_STEPS}),
    "chaotic": (lorenz, torch.ones(2, 3), 10.0, {Status.DONE, Status.TOO_MANY_STEPS}),
    "NaN": (lambda t, y: y * math.nan, torch.ones(2, 1), 1.0, {Status.NOT_FINITE}),
    "blow-up": (lambda t, y: 9 * y * y, torch.ones(2, 1), 1.0, {Status.NOT_FINITE, Status.STEP_TOO_SMALL}),
    "jump": (lambda t, y: 1e30 * torch.sign(y - 1.5), torch.full((2, 1), 1.5), 1.0, set(Status)),
    "constant": (lambda t, y: torch.ones_like(y), torch.ones(2, 1), 1.0, {Status.DONE}),
    "zero": (lambda t, y: torch.zeros_like(y), torch.zeros(2, 1), 1.0, {Status.DONE}),
}


@pytest.mark.parametrize("control", [PerSample, BatchCoupled])
@pytest.mark.parametrize("problem", AWKWARD)
def test_awkward_problems_end_with_a_status(problem, control):
    field, y0, t1, allowed = AWKWARD[problem]
    solution = solve(field, y0, t1=t1, control=control(rtol=1e-4, atol=1e-4, max_steps=300))
    assert set(map(Status, solution.status.tolist())) <= allowed
    assert bool(solution.y1.isfinite().all())
    assert bool((solution.stats.accepted + solution.stats.rejected <= 300).all())


def test_one_bad_sample_does_not_hold_up_the_others():
    def field(t, y):
        return 0 * torch.log(5 - y) - y

    y0 = torch.tensor([[1.0], [9.0], [2.0]], requires_grad=True)
    solution = solve(field, y0, control=PerSample(rtol=1e-4, atol=1e-6))
    assert solution.status.tolist() == [Status.DONE, Status.NOT_FINITE, Status.DONE]
    assert solution.y1[[0, 2], 0].tolist() == pytest.approx([math.exp(-1), 2 * math.exp(-1)], rel=1e-3)
    (gradient,) = torch.autograd.grad(solution.y1[[0, 2]].sum(), y0)
    assert gradient.isfinite().all()
    fixed = solve(field, y0, control=Fixed(steps=4))
    assert fixed.status.tolist() == [Status.DONE, Status.NOT_FINITE, Status.DONE]


def test_an_attempt_that_overflows_leaves_the_gradient_finite():
    def field(t, y):
        return torch.exp(80 * y) * 1e-30 - y

    y0 = torch.tensor([[0.85], [0.1]], requires_grad=True)
    solution = solve(field, y0, control=PerSample(rtol=0.1, atol=0.1))
    assert solution.status.tolist() == [Status.DONE, Status.DONE]
    assert torch.autograd.grad(solution.y1.sum(), y0)[0].isfinite().all()


def test_nothing_to_do():
    y0 = torch.ones(3, 2, requires_grad=True)
    still = solve(rotation, y0, t0=0.5, t1=0.5)
    assert still.y1 is y0
    assert still.status.tolist() == [0, 0, 0]
    assert still.stats.evaluations.tolist() == [0, 0, 0]
    empty = solve(rotation, y0[:0])
    assert empty.y1.shape == (0, 2)
    assert empty.status.shape == (0,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y0": torch.ones(2, 2, dtype=torch.int64)}, "floating point"),
        ({"y0": [torch.ones(2, 2)]}, "tensor or a tuple"),
        ({"y0": (torch.ones(2, 2), torch.ones(3, 2))}, "batch as their first"),
        ({"t1": math.inf}, "'t1' of solve must be a finite"),
        ({"field": lambda t, y: y[:, :1]}, "shape of the state"),
        ({"method": RK4, "control": PerSample(rtol=0.1, atol=0.1)}, "estimates its error"),
        ({"method": BACKWARD_EULER, "control": PerSample(rtol=0.1, atol=0.1)}, "fixed steps only"),
        ({"method": BACKWARD_EULER, "y0": torch.ones(2, 2).half()}, "float32 or better"),
        ({"method": "dopri5"}, "'method' of solve"),
        ({"control": "fixed"}, "'control' of solve"),
        ({"gradient": "frozen"}, "'gradient' of solve"),
        ({"t1": "1"}, "'t1' of solve must be a finite"),
        ({"field": lambda t, y: None}, "must return a tensor"),
        ({"field": lambda t, y: y.double()}, r"no more precise than the state, torch.float32. Got torch.float64"),
        ({"field": lambda t, y: y * 1j}, "Got torch.complex64"),
        ({"field": lambda t, y: None, "y0": (torch.ones(2, 2), torch.ones(2, 1))}, "a tuple of 2 tensors"),
    ],
)
def test_bad_input_is_told(change, said):
    arguments = {"field": rotation, "y0": torch.ones(2, 2), "control": Fixed(steps=2), **change}
    with pytest.raises(BadInput, match=said):
        solve(**arguments)


@pytest.mark.parametrize("make", [PerSample, BatchCoupled])
@pytest.mark.parametrize(
    "tolerance",
    [
        {"rtol": 0.0, "atol": 0.0},
        {"rtol": -1.0, "atol": 1.0},
        {"rtol": math.nan, "atol": 1.0},
        {"rtol": "a", "atol": 1.0},
        {"rtol": 1.0, "atol": 1.0, "max_steps": 2.5},
    ],
)
def test_tolerances_are_checked(make, tolerance):
    with pytest.raises(BadInput, match=make.__name__):
        make(**tolerance)


def test_an_unreachable_tolerance_gives_a_status():
    y0 = torch.ones(2, 2)
    solution = solve(rotation, y0, control=PerSample(rtol=0.0, atol=1e-17, max_steps=500))
    assert set(solution.status.tolist()) <= {Status.STEP_TOO_SMALL, Status.TOO_MANY_STEPS}
