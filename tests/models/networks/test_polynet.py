"""PolyNet against Neumann's series, the true step of backward Euler, and the architecture written a second time."""

import copy
from dataclasses import replace
from itertools import islice

import pytest
import torch
from staged_reference import (
    POINTS,
    Tanh,
    Times,
    branch_tensors,
    frame_parameters,
    framed,
    random,
    randomised,
    residual,
    slope,
    written,
)
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.polynet import PolyBlock, PolyNet
from verigrad.models.networks.staged import residual_function
from verigrad.solvers import BACKWARD_EULER, Fixed, Status, solve
from verigrad.training.trainer import initialised

STEPS = tuple(2.0**-k for k in range(3, 8))
TIGHT = replace(BACKWARD_EULER, tolerance=1e-13)  # the stage far below the distances that are measured


class Linear(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.matrix = random(n, n) / n**0.5

    def forward(self, y: Tensor) -> Tensor:
        return y @ self.matrix.t()


def backward_euler(function: nn.Module, y: Tensor, h: float) -> Tensor:
    with torch.no_grad():
        solution = solve(lambda t, state: function(state), y, t1=h, method=TIGHT, control=Fixed(steps=1))
    assert bool((solution.status == int(Status.DONE)).all())
    return solution.y1


def fitted(function: nn.Module, order: int, y: Tensor) -> float:
    """How the distance between the block and backward Euler falls with h."""
    with torch.no_grad():
        apart = [
            float((PolyBlock(function, order=order, h=h)(y) - backward_euler(function, y, h)).norm()) for h in STEPS
        ]
    return slope(apart, STEPS)


@pytest.mark.parametrize("h", [1.0, 0.3])
@pytest.mark.parametrize("order", [1, 2, 5])
def test_for_a_linear_function_it_is_neumann_s_series(order: int, h: float):
    function, y = Linear(6), random(3, 6, seed=5)
    a, one = h * function.matrix, torch.eye(6, dtype=torch.float64)
    got = PolyBlock(function, order=order, h=h)(y)
    powers = sum(torch.linalg.matrix_power(a, k) for k in range(order + 1))
    torch.testing.assert_close(got, y @ powers.t(), rtol=1e-12, atol=1e-12)
    # (I − hA) Σ_{k≤p} (hA)^k = I − (hA)^(p+1): what is missing of the inverse is exactly the next power.
    missing = y @ (one - torch.linalg.matrix_power(a, order + 1)).t()
    torch.testing.assert_close(got @ (one - a).t(), missing, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_linear_function_brings_it_to_backward_euler_with_one_power_more(order: int):
    assert abs(fitted(Linear(6), order, random(3, 6, seed=5)) - (order + 1)) < 0.2


def test_another_function_is_h_squared_away_at_any_order_and_h_where_it_does_not_vanish_at_zero():
    y = random(3, 6, seed=5)
    still, moved = Tanh(6), Tanh(6, bias=True)
    assert [fitted(still, order, y) for order in (1, 2, 3)] == pytest.approx([2, 2, 2], abs=0.2)
    assert [fitted(moved, order, y) for order in (1, 2, 3)] == pytest.approx([2, 1, 1], abs=0.2)
    # What would keep the order of the linear case: the second iterate of Y = y + hF(Y).
    nested = [float((y + h * moved(y + h * moved(y)) - backward_euler(moved, y, h)).norm()) for h in STEPS]
    assert abs(slope(nested, STEPS) - 3) < 0.2


def test_the_network_s_own_function_is_one_that_does_not_vanish():
    function = randomised(initialised(lambda: residual_function(8, "group"), 0))
    y = random(2, 8, 4, 4, seed=5)
    assert [fitted(function, order, y) for order in (1, 2, 3)] == pytest.approx([2, 1, 1], abs=0.3)


def test_poly_2_is_written_out():
    function, y = Tanh(6, bias=True), random(3, 6)
    inner = 0.7 * function(y)
    torch.testing.assert_close(PolyBlock(function, h=0.7)(y), y + inner + 0.7 * function(inner))


def test_the_table_of_stability_holds_what_the_block_does():
    one = torch.ones(1, 1, dtype=torch.complex128)
    for name, order in (("residual block, Euler", 1), ("poly-2", 2)):
        got = [abs(complex(PolyBlock(Times(z), order=order)(one))) for z in POINTS]
        assert written(name) == pytest.approx(got, abs=6e-4)
    assert written("backward Euler") == pytest.approx([abs(1 / (1 - z)) for z in POINTS], abs=6e-4)
    assert written("exact, e^z") == pytest.approx([abs(torch.exp(z * one).item()) for z in POINTS], abs=6e-4)


@pytest.mark.parametrize(
    ("width", "blocks", "classes", "in_channels"), [(32, (2, 2, 2), 10, 3), (8, (1, 2, 3), 7, 1), (4, (1, 1, 1), 10, 1)]
)
def test_the_parameters_are_those_of_the_architecture(width, blocks, classes, in_channels):
    """A branch on c channels has two norms of 2c and two kernels of 9c²."""
    stages = sum(n * (4 * c + 18 * c**2) for n, c in zip(blocks, (width, 2 * width, 4 * width), strict=True))
    for order in (1, 2, 4):
        model = PolyNet(width, blocks, classes, in_channels, order=order)
        got = sum(weight.numel() for weight in model.parameters())
        assert got == frame_parameters(width, classes, in_channels) + stages


def test_the_docstring_tells_the_size_of_the_default():
    assert f"{sum(weight.numel() for weight in PolyNet().parameters()):,} parameters" in str(PolyNet.__doc__)


@pytest.mark.parametrize(
    ("norm", "order", "shape"),
    [("group", 2, (3, 32, 32)), ("group", 3, (1, 8, 8)), ("none", 2, (1, 28, 28)), ("batch", 1, (1, 8, 8))],
)
def test_the_network_is_the_architecture(norm, order, shape):
    blocks, h = (2, 1, 1), 0.5
    model = randomised(initialised(lambda: PolyNet(4, blocks, 5, shape[0], order=order, h=h, norm=norm), 0))
    remaining = iter(blocks)

    def stage(y, take):
        for _ in range(next(remaining)):
            tensors = list(islice(take, branch_tensors(norm)))
            powers = [y]
            for _ in range(order):
                powers.append(h * residual(powers[-1], norm, tensors))
            y = torch.stack(powers).sum(0)
        return y

    x = random(2, *shape).abs()
    want = framed(model, x, norm, stage)
    assert want.shape == (2, 5)
    torch.testing.assert_close(model(x), want, rtol=1e-10, atol=1e-10)


def test_a_copy_computes_the_same_and_every_weight_is_learned():
    model = initialised(lambda: PolyNet(8, in_channels=1), 0).eval()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    model(x).square().sum().backward()
    assert all(bool(weight.grad.any()) for weight in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolyBlock(nn.Identity(), order=0), "must be at least 1, which is a residual block. Got 0"),
        (lambda: PolyNet(h=0.0), r"step size in \(0, inf\). Got 0.0"),
        (lambda: PolyNet(h=float("nan")), "Got nan"),
        (lambda: PolyNet(norm="batch"), "one running average"),
        (lambda: PolyNet(norm="layer"), "must be 'group', 'batch' or 'none'. Got 'layer'"),
        (lambda: PolyNet(12), "below 8 or a multiple of 8"),
        (lambda: PolyNet(0), "at least 1. Got 0"),
        (lambda: PolyNet(blocks=(2, 2)), "three numbers of at least 1"),
        (lambda: PolyNet(8)(torch.rand(1, 3, 3, 8)), "at least 4. Got 3×8"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
