"""Lipschitz bounds: against dense matrices, Jacobians, attacks, and exact distances of linear classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from inside import broken_inside
from torch import Tensor, nn

from verigrad.catalog import build, complete
from verigrad.certificates.base import Honesty
from verigrad.certificates.folding import exact, fold
from verigrad.certificates.gain import conv_gain
from verigrad.certificates.spectral import Spectral, reach
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.data.digits import load_digits
from verigrad.models.checkpoint import load_checkpoint
from verigrad.models.normalised import Normalised
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

NETS = Path(__file__).resolve().parents[1] / "nets"


def run(model: nn.Module, x: Tensor, y: Tensor, norm: str = "l2"):
    return Spectral(norm=norm)(model, x, y, generator=seeded(0, "spectral", range(len(x))))


def dense(weight: Tensor, size: tuple[int, int], padding: int, **shape) -> Tensor:
    """The matrix of a convolution, column by column."""
    channels = weight.shape[1] * shape.get("groups", 1)
    columns = torch.eye(channels * size[0] * size[1], dtype=torch.float64).reshape(-1, channels, *size)
    return F.conv2d(columns, weight, padding=padding, **shape).flatten(1).T


@pytest.mark.parametrize(
    ("kernel", "size", "padding", "shape"),
    [
        ((3, 2, 3, 3), (8, 8), 1, {}),
        ((3, 2, 3, 3), (7, 5), 0, {}),
        ((3, 2, 3, 3), (8, 8), 1, {"stride": (2, 2)}),
        ((3, 2, 4, 4), (8, 8), 1, {"stride": (2, 2)}),
        ((4, 2, 3, 3), (7, 6), 3, {"stride": (3, 2)}),
        ((4, 2, 1, 1), (6, 6), 0, {"stride": (2, 2)}),
        ((4, 1, 3, 3), (6, 6), 1, {"groups": 4}),
        ((4, 2, 3, 3), (7, 7), 2, {"dilation": (2, 2)}),
        ((2, 1, 5, 5), (3, 3), 2, {}),
    ],
)
def test_a_convolution_is_bounded_by_its_circular_form(kernel, size, padding, shape) -> None:
    torch.manual_seed(0)
    weight = torch.randn(*kernel, dtype=torch.float64)
    matrix = dense(weight, size, padding, **shape)
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    bound = conv_gain(weight, size, "l2", **shape)
    assert norm <= bound * (1 + 1e-12)
    assert bound <= 2 * norm
    assert float(matrix.abs().sum(1).max()) <= conv_gain(weight, size, "linf", **shape) + 1e-12


def test_the_reshaped_kernel_is_no_bound() -> None:
    """A control: what torch's spectral_norm divides by is passed by the operator."""
    torch.manual_seed(0)
    weight = torch.rand(3, 2, 3, 3, dtype=torch.float64)
    norm = float(torch.linalg.matrix_norm(dense(weight, (8, 8), 1), 2))
    assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) < norm


def test_decimation_of_a_circular_convolution_is_exact() -> None:
    """On a grid that the stride divides, against the dense matrix of the circular convolution."""
    torch.manual_seed(0)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    columns = torch.eye(3 * 8 * 8, dtype=torch.float64).reshape(-1, 3, 8, 8)
    wrapped = F.conv2d(F.pad(columns, (0, 2, 0, 2), mode="circular"), weight)[:, :, ::2, ::2]
    norm = float(torch.linalg.matrix_norm(wrapped.flatten(1), 2))
    assert conv_gain(weight, (6, 6), "l2", stride=(2, 2)) == pytest.approx(norm)  # 6 + 3 − 1 = 8


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_linear_classifier_gets_its_distance(norm: str, normalised: bool) -> None:
    """In the whole space; in units of the image, not of the normalisation."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    model = Normalised(linear, (0.3, 0.6, 0.1), (0.2, 0.5, 0.9)).double() if normalised else linear
    x = torch.rand(20, 3, 2, 2, dtype=torch.float64)
    logits = model(x).detach()
    y = logits.argmax(1)
    std = torch.tensor([0.2, 0.5, 0.9]).double().repeat_interleave(4) if normalised else 1.0
    rows = linear[1].weight.detach() / std
    dual = torch.linalg.vector_norm(rows[:, None] - rows, 2 if norm == "l2" else 1, dim=2)
    margins = logits.gather(1, y[:, None]) - logits
    expected = (margins / dual[y]).scatter(1, y[:, None], torch.inf).amin(1)
    got = run(model, x, y, norm).radius
    far = torch.maximum(x, 1 - x).flatten(1)
    expected = torch.minimum(expected, far.norm(dim=1) if norm == "l2" else far.amax(1))
    assert torch.allclose(got, expected, rtol=1e-6)
    assert (got <= expected).all()


NETWORKS = (
    "small-conv:channels=4",
    "normalised:module=small-conv(channels=4),mean=(0.3),std=(0.25)",
    "resnet10:channels=4",
    "resnet8:channels=4,h=0.1",
    "preact-resnet18:channels=4",
    "resnext34:channels=4",
    "skew-linear:size=8,method=rk4,steps=2",
    "skew-linear:size=8,method=euler,steps=3,variant=released,hidden=(7)",
    "skew-conv:channels=4,method=euler,steps=4",
    "skew-conv:channels=4,strides=1-2,method=rk4,gamma=0.2,activation=tanh",
    "odenet:channels=4,blocks=1,method=euler",
)


@pytest.mark.parametrize("spec", NETWORKS)
def test_no_difference_quotient_passes_the_bound(spec: str) -> None:
    torch.manual_seed(0)
    model = exact(build("model", complete(spec, in_channels=1, classes=5)))
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    parts = fold(model, x)
    found = reach(parts, "l2")
    assert not found.doubts
    jacobian = torch.autograd.functional.jacobian(lambda image: model(image[None])[0], x[0]).reshape(5, -1)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) <= found.logits * (1 + 1e-9)
    differences = jacobian[:, None] - jacobian
    assert (differences.norm(dim=2) <= found.pairs * (1 + 1e-9)).all()
    if "odenet" not in spec:
        linf = reach(parts, "linf")
        assert float(jacobian.abs().sum(1).max()) <= linf.logits * (1 + 1e-9)
        assert (differences.abs().sum(2) <= linf.pairs * (1 + 1e-9)).all()


def test_a_residual_sum_is_one_plus_its_branch() -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch = nn.Linear(4, 4)

        def forward(self, x):
            x = x.flatten(1)
            return x + 0.5 * self.branch(x).relu()

    model = Net()
    inner = float(torch.linalg.matrix_norm(model.branch.weight.detach(), 2))
    assert reach(fold(model, torch.rand(1, 1, 2, 2)), "l2").logits == pytest.approx(1 + 0.5 * inner, rel=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", ["conv", "hardened"])
def test_no_attack_gets_inside_a_radius(name: str, norm: str) -> None:
    digits = load_digits("test")
    x, y = digits.x[:200], digits.y[:200]
    model = load_checkpoint(NETS / name)
    got = run(model, x, y, norm)
    assert got.honesty is Honesty.SOUND
    right = got.predicted == y
    assert (got.radius[right] > 0).float().mean() > 0.9
    assert not broken_inside(model, x[right], y[right], got.radius[right], norm).any()
    # A control: far enough out the same attack does find errors.
    assert broken_inside(model, x[right], y[right], 40 * got.radius[right], norm).any()


@pytest.mark.parametrize(
    "spec",
    ["skew-linear:size=8,variant=released,method=rk4,steps=2", "skew-conv:channels=4,method=euler,steps=4"],
)
def test_no_attack_gets_inside_a_radius_of_a_skew_net(spec: str) -> None:
    digits = load_digits("train")
    whole = complete(spec, in_channels=1, classes=10)
    model = initialised(lambda: build("model", whole), 0)
    train(model, digits.x, digits.y, Natural(), Recipe(epochs=4, batch=64, lr=0.01))
    x, y = load_digits("test").x[:200], load_digits("test").y[:200]
    got = run(model, x, y)
    assert got.honesty is Honesty.SOUND
    right = got.predicted == y
    assert right.float().mean() > 0.5
    assert (got.radius[right] > 0.001).float().mean() > 0.8
    assert not broken_inside(model, x[right], y[right], got.radius[right], "l2").any()
    assert broken_inside(model, x[right], y[right], 10 * got.radius[right], "l2").any()


def test_three_times_the_radius_is_contradicted_where_the_bound_is_tight() -> None:
    """A linear field under Euler: norm and bound differ only by the last layer's pairs."""
    torch.manual_seed(0)
    spec = "skew-linear:size=4,classes=3,activation=identity,method=euler,steps=4"
    model = build("model", complete(spec, in_channels=1))
    x = torch.rand(100, 1, 4, 4)
    y = model(x).argmax(1)
    radius = run(model, x, y).radius
    assert not broken_inside(model, x, y, radius, "l2").any()
    assert broken_inside(model, x, y, 3 * radius, "l2").any()


def test_an_adaptive_grid_makes_it_an_estimate_and_says_so() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)
    for control in ("batch", "sample"):
        model = build("model", f"skew-conv:channels=4,in_channels=1,control={control}")
        got = run(model, x, y)
        assert got.honesty is Honesty.ESTIMATE
        assert any("blocks.0" in line and "exact flow" in line for line in got.assumptions)
        assert any("other images" in line for line in got.assumptions) == (control == "batch")
    fixed = build("model", "skew-conv:channels=4,in_channels=1,method=euler")
    assert run(fixed, x, y).honesty is Honesty.SOUND


def test_group_norm_under_linf_leaves_the_euclidean_route() -> None:
    torch.manual_seed(0)
    model = build("model", "polynet:channels=4,in_channels=1,classes=3").eval()
    x = torch.rand(2, 1, 8, 8)
    y = model(x).argmax(1)
    got = run(model, x, y, "linf")
    assert "lipschitz_linf" not in got.facts
    assert torch.allclose(got.radius * 8, run(model, x, y).radius)


def test_weights_that_are_not_finite_give_no_radius() -> None:
    layer = nn.Linear(4, 2)
    nn.init.constant_(layer.weight, torch.nan)
    model, x = nn.Sequential(nn.Flatten(), layer), torch.rand(2, 1, 2, 2)
    for norm in ("l2", "linf"):
        got = run(model, x, torch.zeros(2, dtype=torch.int64), norm)
        assert (got.radius == 0).all()
        assert got.abstained.all()
        assert all(value < float("inf") for value in got.facts.values())


def test_bad_values_are_refused() -> None:
    for bad in ({"norm": "l0"}, {"batch": 0}):
        with pytest.raises(BadInput, match="Spectral"):
            Spectral(**bad)
