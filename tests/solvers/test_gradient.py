"""Each way of differentiating a solve, against finite differences and against what it claims to leave out."""

import dataclasses
import gc

import pytest
import torch
from systems import ConvField, PairField, apart, gradients, images, leaf, loss, rotation
from torch.autograd import gradcheck, gradgradcheck

from verigrad.core.errors import BadInput, VerigradError
from verigrad.solvers import (
    BACKWARD_EULER,
    DOPRI5,
    HEUN2,
    IMPLICIT_MIDPOINT,
    RK4,
    Adjoint,
    BatchCoupled,
    Checkpointed,
    Direct,
    Fixed,
    PerSample,
    Replay,
    solve,
)

Y0 = torch.tensor([[1.0, 0.2], [0.3, -2.0]], dtype=torch.float64)
ADAPTIVE = [PerSample(rtol=0.01, atol=0.01), BatchCoupled(rtol=0.01, atol=0.01)]
ENDS = [dataclasses.replace(c, end=end) for c in ADAPTIVE for end in ("clip", "interpolate")]


def swirl(t, y):
    """A field with curvature, so that its second derivatives are not zero."""
    return rotation(t, torch.tanh(y)) - 0.1 * y**3


@pytest.mark.parametrize("control", ENDS, ids=lambda c: f"{type(c).__name__}-{c.end}")
@pytest.mark.parametrize("method", [HEUN2, DOPRI5], ids=lambda m: m.name)
def test_whole_grid_gradient_is_the_derivative(method, control):
    y0 = leaf(Y0)

    def end(y):
        return solve(swirl, y, method=method, control=control, gradient=Direct(grid="all")).y1

    assert gradcheck(end, y0, atol=1e-6)
    assert gradgradcheck(end, y0, atol=1e-4)


def test_whole_grid_gradient_on_images_against_central_differences():
    field, y0 = PairField(), (images(3, 4), images(3, 2))
    control = BatchCoupled(rtol=0.1, atol=0.1)
    inputs = leaf(y0)
    gradient = gradients(solve(field, inputs, control=control, gradient=Direct(grid="all")).y1, inputs)
    frozen = gradients(solve(field, inputs, control=control).y1, inputs)
    direction = tuple(torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype) for p in y0)

    def along(eps):
        return loss(solve(field, tuple(p + eps * d for p, d in zip(y0, direction, strict=True)), control=control).y1)

    with torch.no_grad():
        slope = float(along(1e-6) - along(-1e-6)) / 2e-6
    ours = float(sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)))
    other = float(sum((g * d).sum() for g, d in zip(frozen, direction, strict=True)))
    assert ours == pytest.approx(slope, rel=1e-5)
    assert other != pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("control", ENDS, ids=lambda c: f"{type(c).__name__}-{c.end}")
def test_frozen_gradient_is_the_derivative_on_its_grid(control):
    y0 = leaf(Y0)
    made = solve(swirl, y0, control=control)

    def end(y):
        return solve(swirl, y, control=Replay(grid=made.grid)).y1

    assert gradcheck(end, y0, atol=1e-6)
    assert gradgradcheck(end, y0, atol=1e-4)
    assert apart(gradients(made.y1, y0), gradients(end(y0), y0)) < 1e-12


def test_first_step_gradient_is_the_derivative_with_later_steps_held():
    y0 = leaf(Y0)
    control = BatchCoupled(rtol=0.001, atol=0.001)
    made = solve(swirl, y0, control=control, gradient=Direct(grid="first"))
    assert made.stats.rejected.tolist() == [0, 0]
    gradient = gradients(made.y1, y0)

    def end(y):
        first = solve(swirl, y, control=control).grid.h[:, :1]
        h = torch.cat([first, made.grid.h[:, 1:]], 1)
        t = torch.cumsum(h, 1) - h
        return loss(solve(swirl, y, control=Replay(grid=dataclasses.replace(made.grid, t=t, h=h))).y1)

    with torch.no_grad():
        eye = torch.eye(4, dtype=torch.float64).reshape(4, 2, 2) * 1e-6
        slopes = torch.stack([(end(Y0 + e) - end(Y0 - e)) / 2e-6 for e in eye]).reshape(2, 2)
    assert apart(gradient[0], slopes) < 1e-6


@pytest.mark.parametrize("control", [*ADAPTIVE, Fixed(steps=7)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("every", [None, 1, 3, 100])
def test_checkpointed_is_the_frozen_gradient(control, every):
    field, y0 = PairField(), (images(4, 4), images(4, 2))
    direct, kept = leaf(y0), leaf(y0)
    a = solve(field, direct, control=control)
    b = solve(field, kept, control=control, gradient=Checkpointed(every=every))
    assert apart(b.y1, a.y1) < 1e-12
    assert apart(gradients(b.y1, kept, field.weight), gradients(a.y1, direct, field.weight)) < 1e-12


def test_checkpointed_has_second_derivatives():
    def end(y):
        return solve(swirl, y, control=Fixed(steps=5), method=RK4, gradient=Checkpointed()).y1

    assert gradgradcheck(end, leaf(Y0), atol=1e-4)


def test_checkpointed_memory_grows_with_the_square_root_of_the_steps():
    field, y0 = ConvField(2), leaf(images(2, 2))

    def kept(steps):
        solution = solve(field, y0, t1=100.0, method=RK4, control=Fixed(steps=steps), gradient=Checkpointed())
        states = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape == y0.shape]
        assert solution.y1.requires_grad
        return len(states)

    # Four times the steps keep twice the states, those at the ends of the legs.
    assert kept(400) / kept(100) == pytest.approx(2.0, rel=0.25)


@pytest.mark.parametrize("control", [*ADAPTIVE, Fixed(steps=40)], ids=lambda c: type(c).__name__)
def test_adjoint_comes_near_the_derivative(control):
    if not isinstance(control, Fixed):
        control = dataclasses.replace(control, rtol=1e-8, atol=1e-8)
    field, y0 = ConvField(3), images(3, 3)
    direct, back = leaf(y0), leaf(y0)
    a = solve(field, direct, control=control)
    b = solve(field, back, control=control, gradient=Adjoint(rtol=1e-8, atol=1e-8))
    assert apart(gradients(b.y1, back, field.weight), gradients(a.y1, direct, field.weight)) < 1e-5


@pytest.mark.parametrize("control", [Fixed(steps=3), *ADAPTIVE], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize(
    "gradient",
    [
        Direct(grid="frozen"),
        Direct(grid="first"),
        Direct(grid="all"),
        Checkpointed(),
        Checkpointed(every=2),
        Adjoint(rtol=1e-8, atol=1e-8, parameters=()),
    ],
    ids=repr,
)
def test_every_mode_passes_gradcheck_where_the_steps_do_not_move_the_end(control, gradient):
    """At a tight tolerance, or along given steps, what a mode leaves out of the derivative is below the bound."""
    if not isinstance(control, Fixed):
        control = dataclasses.replace(control, rtol=1e-7, atol=1e-7, end="clip")

    def end(y):
        return solve(swirl, y, t1=0.3, control=control, gradient=gradient).y1

    assert gradcheck(end, leaf(Y0), atol=1e-5, check_undefined_grad=False)


def test_adjoint_passes_gradcheck_at_a_tight_tolerance():
    gradient = Adjoint(rtol=1e-9, atol=1e-9, parameters=())

    def end(y):
        return solve(swirl, y, control=PerSample(rtol=1e-9, atol=1e-9), gradient=gradient).y1

    assert gradcheck(end, leaf(Y0), atol=1e-5, check_undefined_grad=False)


def test_adjoint_refuses_what_it_cannot_do():
    with pytest.raises(BadInput, match="parameters of its field"):
        solve(rotation, Y0, gradient=Adjoint(rtol=0.1, atol=0.1))
    y0 = leaf(Y0)
    y1 = solve(rotation, y0, gradient=Adjoint(rtol=0.1, atol=0.1, parameters=())).y1
    with pytest.raises(VerigradError, match="second derivatives"):
        torch.autograd.grad(y1.sum(), y0, create_graph=True)


@pytest.mark.parametrize("method", [BACKWARD_EULER, IMPLICIT_MIDPOINT], ids=lambda m: m.name)
def test_implicit_gradient(method):
    exact = dataclasses.replace(method, tolerance=1e-13)

    def end(y):
        return solve(swirl, y, method=exact, control=Fixed(steps=3)).y1

    assert gradcheck(end, leaf(Y0), check_undefined_grad=False)
    y0 = leaf(Y0)
    with pytest.raises(VerigradError, match="second derivatives"):
        torch.autograd.grad(end(y0).sum(), y0, create_graph=True)


@pytest.mark.parametrize("wrong", [{"grid": "some"}, {"grid": None}])
def test_direct_names_its_choices(wrong):
    with pytest.raises(BadInput, match="frozen"):
        Direct(**wrong)


def test_checkpointed_needs_a_stride():
    for every in (0, 1.5, True):
        with pytest.raises(BadInput, match="at least 1"):
            Checkpointed(every=every)


def test_without_a_graph_nothing_is_recorded():
    field, y0 = ConvField(3), images(3, 3)
    with torch.no_grad():
        for gradient in (Direct(grid="all"), Checkpointed(), Adjoint(rtol=0.1, atol=0.1)):
            assert not solve(field, y0, control=PerSample(rtol=0.1, atol=0.1), gradient=gradient).y1.requires_grad
