"""FMN against one image at a time in NumPy, and against exact distances."""

import math

import numpy as np
import pytest
import torch
from controls import Coupled, best_l2, best_linf
from nearest_errors import ask, exact, exact_pixels, linear, tanh_net

from verigrad.attacks.fmn import FMN
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf

WIDE = {"l2": L2(eps=1e3), "linf": Linf(eps=1.0), "l0": L0(pixels=9)}


def measure(delta: np.ndarray, norm: str) -> float:
    if norm == "l0":
        return float((delta != 0).any(0).sum())
    return float(np.abs(delta).max() if norm == "linf" else np.linalg.norm(delta))


def into_ball(delta: np.ndarray, eps: float, norm: str) -> np.ndarray:
    if norm == "linf":
        return np.clip(delta, -eps, eps)
    if norm == "l2":
        return delta * min(1.0, eps / max(np.linalg.norm(delta), 1e-300))
    size = (delta**2).sum(0).ravel()
    kept = np.zeros(size.size, dtype=bool)
    kept[np.argsort(-size, kind="stable")[: int(eps)]] = True
    return delta * kept.reshape(delta.shape[1:])


def by_the_book(model, x: np.ndarray, label: int, norm: str, steps: int) -> tuple[np.ndarray, float]:
    delta, eps, best, least = np.zeros_like(x), 1.0 if norm == "l0" else 0.0, x, np.inf
    farthest, point = measure(np.where(x > 0.5, x, 1 - x), norm), x
    for k in range(steps + 1):
        m, g, wrong = ask(model, point, label)
        if wrong and measure(delta, norm) < least:
            best, least = point, measure(delta, norm)
        fall = (1 + math.cos(math.pi * k / steps)) / 2
        alpha, gamma = 0.01 + 0.99 * fall, 0.001 + 0.049 * fall
        usable = np.where(((g > 0) & (point >= 1)) | ((g < 0) & (point <= 0)), 0, g)
        if norm == "l0":
            eps = min(eps - 1, eps * (1 - gamma) // 1, least) if wrong else max(eps + 1, eps * (1 + gamma) // 1)
        elif wrong:
            eps = min(eps * (1 - gamma), least)
        else:
            dual = np.abs(g).sum() if norm == "linf" else np.linalg.norm(usable)
            there = measure(delta, norm) + abs(m) / dual if not np.isfinite(least) else 0
            eps = max(eps * (1 + gamma), there)
        eps = min(max(eps, 0), farthest)
        point = np.clip(x + into_ball(delta + alpha * usable / np.linalg.norm(usable), eps, norm), 0, 1)
        delta = point - x
    return best, least


@pytest.mark.parametrize("norm", WIDE)
@pytest.mark.parametrize("steps", [1, 30])
def test_same_points_as_one_image_at_a_time(norm: str, steps: int):
    model, x, y = tanh_net()
    got = FMN(steps=steps)(model, x, y, WIDE[norm], generator=seeded(0, "fmn", range(len(x))))
    for i in range(len(x)):
        best, least = by_the_book(model, x[i].numpy(), int(y[i]), norm, steps)
        assert bool(got.broken[i]) == np.isfinite(least)
        assert not np.isfinite(least) or abs(float(got.distance[i]) - least) < 1e-9
        # Iterates on one sphere are equally near up to rounding, so that the point kept may be a neighbour.
        assert np.abs(got.x_adv[i].numpy() - best).max() < 1e-4
    assert (got.forwards == steps + 2).all()
    assert got.broken.any() or steps == 1


@pytest.mark.parametrize(("norm", "best"), [("l2", best_l2), ("linf", best_linf)])
def test_within_a_thousandth_of_the_exact_distance(norm: str, best):
    """Also where most of the way is along the box's border."""
    model, x, y, lead = linear()
    got = FMN()(model, x, y, WIDE[norm], generator=seeded(0, "fmn", range(len(x))))
    distance = exact(model, x, lead, best)
    assert got.broken.all()
    assert (got.distance <= 1.001 * distance).all()
    assert (got.distance >= distance * (1 - 1e-6)).all()


def test_the_fewest_pixels_of_a_linear_model_or_one_more():
    model, x, y, lead = linear()
    got = FMN()(model, x, y, L0(pixels=9), generator=seeded(0, "fmn", range(len(x))))
    fewest = exact_pixels(model, x, lead)
    assert got.broken.all()
    assert (got.distance >= fewest).all()
    assert (got.distance <= fewest + 1).all()
    assert (got.distance == fewest).double().mean() > 0.7


def test_a_pixel_is_all_its_channels():
    model, x, y, _ = linear()
    got = FMN(steps=20)(model, x, y, L0(pixels=2), generator=seeded(0, "fmn", range(len(x))))
    changed = (got.x_adv != x).any(1).flatten(1).sum(1)
    assert (changed <= 2).all()
    assert ((got.x_adv != x).flatten(1).sum(1) > changed).any()


def test_misclassified_samples_take_one_pass_and_coupled_ones_all():
    model, x, y, _ = linear()
    y = model(x).argmax(1)
    y[0] = 1 - y[0]
    got = FMN(steps=5)(model, x, y, L2(eps=1e3), generator=seeded(0, "fmn", range(len(x))))
    assert got.distance[0] == 0
    assert got.forwards.tolist() == [2] + [7] * (len(x) - 1)  # the second one is the judging pass
    got = FMN(steps=5)(Coupled(model), x, y, L2(eps=1e3), generator=seeded(0, "fmn", range(len(x))))
    assert set(got.forwards.tolist()) == {7}


@pytest.mark.parametrize("fields", [{"steps": 0}, {"step_size": torch.inf}, {"gamma": 0.0}])
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        FMN(**fields)
