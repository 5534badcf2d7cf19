"""The gathered gradient of a step against that of autograd alone, and what may be asked of it besides one backward."""

import gc

import pytest
import torch
from systems import ConvField, PairField, apart, gradients, images, leaf, loss, rotation
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from verigrad.solvers import BOSH3, DOPRI5, RK4, BatchCoupled, Checkpointed, Direct, Fixed, PerSample, solve, stages

Y0 = torch.tensor([[1.0, 0.2], [0.3, -2.0]], dtype=torch.float64)
OWN, SHARED = PerSample(rtol=0.01, atol=0.01), BatchCoupled(rtol=0.01, atol=0.01, end="clip")
WALKS = [
    (DOPRI5, OWN),
    (DOPRI5, PerSample(rtol=0.01, atol=0.01, end="clip")),
    (BOSH3, BatchCoupled(rtol=0.01, atol=0.01)),
    (DOPRI5, SHARED),
    (RK4, Fixed(steps=3)),
]
each_walk = pytest.mark.parametrize(("method", "control"), WALKS, ids=str)


@pytest.fixture(autouse=True)
def gathering(monkeypatch):
    monkeypatch.setattr(stages, "SMALL", 0)


def alone(monkeypatch):
    """From here on every sum is left to autograd."""
    monkeypatch.setattr(stages, "_transformed", lambda: True)


def swirl(t, y):
    return rotation(t, torch.tanh(y)) - 0.1 * y**3


def end(y, **choices):
    return solve(swirl, y, **{"method": RK4, "control": Fixed(steps=3), **choices}).y1


@each_walk
def test_first_and_second_derivatives(method, control):
    if isinstance(control, Fixed):
        assert gradcheck(lambda y: end(y, method=method), leaf(Y0), check_batched_grad=True)
        assert gradgradcheck(lambda y: end(y, method=method), leaf(Y0), atol=1e-4)
        return
    y0 = leaf(Y0)
    first = torch.autograd.grad(loss(end(y0, method=method, control=control)), y0, create_graph=True)[0]
    (second,) = torch.autograd.grad(loss(first), y0)
    monkey = pytest.MonkeyPatch()
    with monkey.context():
        alone(monkey)
        again = torch.autograd.grad(loss(end(y0, method=method, control=control)), y0, create_graph=True)[0]
        monkey.undo()
    assert apart(first, again) < 1e-13
    assert apart(second, torch.autograd.grad(loss(again), y0)[0]) < 1e-12


@each_walk
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_gradient_of_autograd_alone(monkeypatch, method, control, layout):
    field = PairField()
    y0 = leaf(tuple(images(4, c).to(memory_format=layout) for c in (4, 2)))
    a = solve(field, y0, method=method, control=control)
    ours = gradients(a.y1, y0, field.weight)
    alone(monkeypatch)
    b = solve(field, y0, method=method, control=control)
    assert apart(a.y1, b.y1) == 0.0
    assert apart(ours, gradients(b.y1, y0, field.weight)) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_have_the_bits_of_autograd_alone(monkeypatch, dtype):
    field, y0 = ConvField(3, dtype), leaf(images(4, 3, dtype))
    made = [solve(field, y0, control=c).y1 for c in (OWN, SHARED)]
    with torch.no_grad():
        blind = [solve(field, y0, control=c).y1 for c in (OWN, SHARED)]
    whole = [solve(field, y0, control=c, gradient=Direct(grid="all")).y1 for c in (OWN, SHARED)]
    assert all(map(torch.equal, made, blind))
    assert all(map(torch.equal, made, whole))


def sine(t, y):
    return torch.sin(y)


def test_a_state_that_is_a_view_or_a_vector():
    wide = leaf(torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    strided, dense = (solve(sine, y, method=RK4, control=Fixed(steps=2)).y1 for y in (wide[:, ::2], wide[:, ::2] + 0))
    assert apart(gradients(strided, wide), gradients(dense, wide)) < 1e-14
    assert gradcheck(lambda y: solve(sine, y, method=RK4, control=Fixed(steps=2)).y1, leaf(Y0[:, 0]))


def test_a_graph_serves_several_passes():
    field, y0 = ConvField(2), leaf(images(3, 2))
    total = loss(solve(field, y0, control=SHARED).y1)
    only = torch.autograd.grad(total, field.weight, retain_graph=True)
    both = torch.autograd.grad(total, (y0, field.weight), retain_graph=True)
    assert apart(both, torch.autograd.grad(total, (y0, field.weight), retain_graph=True)) == 0.0
    assert apart(only[0], both[1]) == 0.0


def test_a_pass_that_broke_off_leaves_nothing_behind():
    y0, broken = leaf(Y0), [True]

    class Fuse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            if broken[0]:
                raise RuntimeError("blown")
            return g

    def field(t, y):
        return Fuse.apply(swirl(t, y)) if float(t) == 0.5 else swirl(t, y)

    total = loss(solve(field, y0, method=RK4, control=Fixed(steps=1)).y1)
    with pytest.raises(RuntimeError, match="blown"):
        torch.autograd.grad(total, y0, retain_graph=True)
    broken[0] = False
    got = torch.autograd.grad(total, y0, retain_graph=True)
    assert apart(got, torch.autograd.grad(loss(end(y0, control=Fixed(steps=1))), y0)) < 1e-14


def test_a_sum_that_nobody_asked_for_counts_as_zero():
    """Stages without a graph cut the sums behind them off; what is left is y + h Σ b_i k_i over the others."""
    y0, w = leaf(Y0), leaf(torch.tensor(0.7, dtype=torch.float64))

    def field(t, y):
        return w * y if float(t) == 0.0 else (w * y).detach()

    y1 = solve(field, y0, method=RK4, control=Fixed(steps=1)).y1
    got = torch.autograd.grad(y1.sum(), (y0, w))
    want = (torch.full_like(Y0, 1 + 0.7 / 6), Y0.sum() / 6)
    assert apart(got, want) < 1e-14


def test_parameters_without_a_gradient_of_the_start():
    field, y0 = ConvField(2), images(3, 2)
    grown = gradients(solve(field, y0, control=SHARED).y1, field.weight)
    assert apart(grown, gradients(solve(field, leaf(y0), control=SHARED).y1, field.weight)) < 1e-14


def test_checkpointed_is_direct():
    field, y0 = PairField(), leaf((images(4, 4), images(4, 2)))
    direct = gradients(solve(field, y0, control=Fixed(steps=6), method=RK4).y1, y0, field.weight)
    kept = solve(field, y0, control=Fixed(steps=6), method=RK4, gradient=Checkpointed(every=2))
    assert apart(gradients(kept.y1, y0, field.weight), direct) < 1e-14


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_function_transforms_and_forward_mode():
    direction = torch.tensor([[0.3, -1.0], [2.0, 0.5]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(end, Y0)
    along = torch.einsum("ijkl,kl->ij", jacobian, direction)
    assert apart(torch.func.jacrev(end)(Y0), jacobian) < 1e-13
    assert apart(torch.func.jvp(end, (Y0,), (direction,))[1], along) < 1e-13
    assert apart(torch.func.vmap(end)(torch.stack([Y0, 2 * Y0]))[1], end(2 * Y0)) < 1e-13
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(end(forward_ad.make_dual(Y0, direction))).tangent
    assert apart(tangent, along) < 1e-13
    assert apart(torch.autograd.functional.jacobian(end, Y0, vectorize=True), jacobian) < 1e-13


@pytest.mark.parametrize("late", [False, True], ids=["", "the first sum needs no gradient"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_is_kept_after_a_pass(create_graph, late):
    w = leaf(torch.tensor(0.7, dtype=torch.float64))

    def field(t, y):
        return swirl(t, y) * (1.0 if late and float(t) == 0.0 else w)

    gc.collect()
    gc.disable()
    try:
        y1 = solve(field, Y0, method=RK4, control=Fixed(steps=1)).y1
        (gradient,) = torch.autograd.grad(loss(y1), w, create_graph=create_graph)
        del y1, gradient
        assert not any(type(x) is stages._Gathered for x in gc.get_objects())
    finally:
        gc.enable()


def test_one_step_after_the_other_gathers():
    gathering = []

    def look(gradient):
        every = [x for x in gc.get_objects() if type(x) is stages._Gathered]
        gathering.append(sum(bool(x._arrived) for x in every))

    def field(t, y):
        k = swirl(t, y)
        k.register_hook(look)
        return k

    gc.collect()
    y0 = leaf(Y0)
    total = loss(solve(field, y0, method=RK4, control=Fixed(steps=3)).y1)
    torch.autograd.grad(total, y0)
    assert set(gathering) == {0, 1}  # none of the step whose first stage is under way
