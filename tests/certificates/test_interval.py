"""Interval bounds: exact on one layer, and never passed by a sampled point or an attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from controls import best_linf
from inside import broken_inside
from torch import Tensor, nn

from verigrad.catalog import build, complete
from verigrad.certificates.folding import fold
from verigrad.certificates.interval import Box, Interval, margins, propagate
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.data.digits import load_digits
from verigrad.models.checkpoint import load_checkpoint
from verigrad.models.normalised import Normalised

NETS = Path(__file__).resolve().parents[1] / "nets"


def run(model: nn.Module, x: Tensor, y: Tensor, certificate: Interval | None = None):
    return (certificate or Interval())(model, x, y, generator=seeded(0, "interval", range(len(x))))


def exact_linf(rows: np.ndarray, margins: np.ndarray, x: np.ndarray) -> float:
    """The exact distance under Linf to the nearest error in the box of a linear classifier.

    rows, margins: w_k − w_y and logit_y − logit_k for each other class k.
    """
    found = 1.0
    for row, margin in zip(rows, margins, strict=True):
        low, high = 0.0, 1.0
        if best_linf(row, x, 1.0) < margin:
            continue
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if best_linf(row, x, middle) < margin else (low, middle)
        found = min(found, low)
    return found


@pytest.mark.parametrize("normalised", [False, True])
def test_one_layer_is_exact(normalised: bool) -> None:
    """Several classes, the box of images, and a normalisation, whose units must not become those of the radius."""
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double()
    model = Normalised(linear, (0.3, 0.6, 0.1), (0.2, 0.5, 0.9)).double() if normalised else linear
    x = torch.rand(20, 3, 2, 2, dtype=torch.float64)
    logits = model(x).detach()
    y = logits.argmax(1)
    W = linear[1].weight.detach().numpy()
    if normalised:
        W = W / np.repeat([0.2, 0.5, 0.9], 4)
    got = run(model, x, y, Interval(steps=20))
    for i in range(20):
        others = [k for k in range(5) if k != y[i]]
        margins = (logits[i, y[i]] - logits[i, others]).numpy()
        expected = exact_linf(W[others] - W[y[i]], margins, x[i].flatten().numpy())
        expected = min(expected, float(torch.maximum(x[i], 1 - x[i]).max()))
        assert float(got.radius[i]) <= expected * (1 + 1e-9)
        assert float(got.radius[i]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "spec", ["small-conv:channels=4", "resnet10:channels=4", "resnext34:channels=4", "fractalnet:channels=2"]
)
def test_no_point_of_the_box_leaves_the_boxes(spec: str) -> None:
    torch.manual_seed(0)
    model = build("model", complete(spec, in_channels=1, classes=5)).eval()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    parts = fold(model, x[:1])
    low, high = (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1)
    with torch.no_grad():
        boxes = propagate(parts, Box(low, high), range(len(parts)))
        for _ in range(20):
            corner = torch.where(torch.rand_like(x) < 0.5, low, high)
            point = corner if torch.rand(()) < 0.5 else low + (high - low) * torch.rand_like(x)
            inner = propagate(parts, Box(point, point), range(len(parts)))
            for i, box in boxes.items():
                assert (box.low <= inner[i].low + 1e-12).all()
                assert (inner[i].high <= box.high + 1e-12).all()


@pytest.mark.parametrize("name", ["conv", "hardened"])
def test_no_attack_gets_inside_a_radius(name: str) -> None:
    digits = load_digits("test")
    x, y = digits.x[:200], digits.y[:200]
    model = load_checkpoint(NETS / name)
    got = run(model, x, y)
    right = got.predicted == y
    assert (got.radius[right] > 0).float().mean() > 0.9
    assert not broken_inside(model, x[right], y[right], got.radius[right], "linf").any()
    # A control: far enough out the same attack does find errors.
    assert broken_inside(model, x[right], y[right], 40 * got.radius[right], "linf").any()


def test_three_times_the_radius_is_contradicted_where_the_bound_is_tight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.rand(50, 1, 4, 4)
    y = model(x).argmax(1)
    radius = run(model, x, y).radius
    assert not broken_inside(model, x, y, radius, "linf").any()
    assert broken_inside(model, x, y, 3 * radius, "linf").any()


def written_out(model: nn.Sequential, x: np.ndarray, eps: float) -> np.ndarray:
    """The least logit_0 − logit_k of flatten, linear, ReLU, linear, weight by weight: an upper end takes the upper end
    of what it grows with and the lower end of what it falls with."""
    first, last = (model[i].weight.detach().numpy() for i in (1, 3))
    ends = [(max(v - eps, 0.0), min(v + eps, 1.0)) for v in x]
    hidden, biases = [], model[3].bias.tolist()
    for row, bias in zip(first, model[1].bias.tolist(), strict=True):
        low = bias + sum(w * (a if w > 0 else b) for w, (a, b) in zip(row, ends, strict=True))
        high = bias + sum(w * (b if w > 0 else a) for w, (a, b) in zip(row, ends, strict=True))
        hidden.append((max(low, 0.0), max(high, 0.0)))
    found = []
    for k in range(1, len(last)):
        row = last[0] - last[k]
        least = sum(w * (a if w > 0 else b) for w, (a, b) in zip(row, hidden, strict=True))
        found.append(least + biases[0] - biases[k])
    return np.array(found)


def test_two_layers_agree_with_the_bounds_written_out() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    x, y = torch.rand(3, 1, 2, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    parts = fold(model, x[:1])
    for eps in (0.0, 0.05, 0.5):
        boxes = propagate(parts, Box((x - eps).clamp(min=0), (x + eps).clamp(max=1)), range(len(parts)))
        expected = [written_out(model, image.flatten().numpy(), eps) for image in x]
        assert np.allclose(margins(parts, boxes, y), expected)


def test_more_steps_come_closer_by_the_stated_factor() -> None:
    digits = load_digits("test")
    model, x, y = load_checkpoint(NETS / "conv"), digits.x[:20], digits.y[:20]
    fine = run(model, x, y, Interval(steps=20)).radius
    for steps in (2, 6):
        coarse = run(model, x, y, Interval(steps=steps)).radius
        assert (coarse <= fine * (1 + 1e-9)).all()
        assert (fine <= coarse * 10 ** (6 / 2**steps) * (1 + 1e-9)).all()


def test_a_constant_classifier_gets_the_farthest_image() -> None:
    layer = nn.Linear(4, 2)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias[:1].detach(), 1.0)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([0.5, 0.5, 0.5, 0.2]).reshape(1, 1, 2, 2)
    got = run(nn.Sequential(nn.Flatten(), layer), x, torch.tensor([0]))
    assert float(got.radius) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("skew-conv:channels=4", r"ODEBlock \(blocks.0\)"),
        ("odenet:channels=4", r"ODEBlock \(blocks.0\)"),
        ("polynet:channels=4", "GroupNorm"),
    ],
)
def test_what_it_cannot_pass_it_refuses_by_name(spec: str, named: str) -> None:
    model = build("model", complete(spec, in_channels=1, classes=3))
    with pytest.raises(BadInput, match=named):
        run(model, torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))


def test_no_images_no_radii() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert run(model, torch.rand(0, 1, 2, 2), torch.zeros(0, dtype=torch.int64)).radius.shape == (0,)


def test_bad_numbers_are_refused() -> None:
    for bad in ({"steps": -1}, {"batch": 0}):
        with pytest.raises(BadInput, match="Interval"):
            Interval(**bad)
