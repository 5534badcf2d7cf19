"""DDN against one image at a time in NumPy, and against exact distances."""

import math

import numpy as np
import pytest
import torch
from controls import Counting, Coupled, best_l2, stamped
from nearest_errors import ask, exact, linear, tanh_net

from verigrad.attacks.ddn import DDN
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


def by_the_book(model, x: np.ndarray, label: int, steps: int) -> tuple[np.ndarray, float]:
    delta, eps, best, least = np.zeros_like(x), 1.0, x, np.inf
    farthest = np.linalg.norm(np.maximum(x, 1 - x))
    for k in range(steps + 1):
        _, g, wrong = ask(model, x + delta, label, entropy=True)
        if wrong and np.linalg.norm(delta) < least:
            best, least = x + delta, np.linalg.norm(delta)
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        delta = delta + alpha * g / np.linalg.norm(g)
        eps = min(eps * (0.95 if wrong else 1.05), farthest)
        delta = np.clip(x + eps * delta / np.linalg.norm(delta), 0, 1) - x
    return best, least


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_same_points_as_one_image_at_a_time(steps: int):
    model, x, y = tanh_net()
    got = DDN(steps=steps)(model, x, y, L2(eps=1e3), generator=seeded(0, "ddn", range(len(x))))
    for i in range(len(x)):
        best, least = by_the_book(model, x[i].numpy(), int(y[i]), steps)
        assert bool(got.broken[i]) == np.isfinite(least)
        assert np.abs(got.x_adv[i].numpy() - best).max() < 1e-9
    assert (got.forwards == steps + 2).all()
    assert (got.backwards == steps).all()
    assert got.broken.any() or steps == 1


def test_within_a_percent_of_the_exact_distance():
    model, x, y, lead = linear()
    got = DDN()(model, x, y, L2(eps=1e3), generator=seeded(0, "ddn", range(len(x))))
    distance = exact(model, x, lead, best_l2)
    assert got.broken.all()
    assert (got.distance <= 1.01 * distance).all()
    assert (got.distance >= distance * (1 - 1e-6)).all()


def test_the_threat_cuts_the_answer_and_not_the_search():
    model, x, y, _ = linear()
    wide, narrow = (
        DDN(steps=30)(model, x, y, L2(eps=eps), generator=seeded(0, "d", range(len(x)))) for eps in (1e3, 0.4)
    )
    inside = wide.distance <= 0.4
    assert torch.equal(narrow.broken, inside)
    assert torch.equal(narrow.x_adv[inside], wide.x_adv[inside])
    assert torch.equal(narrow.x_adv[~inside], x[~inside])
    assert inside.any()
    assert not inside.all()


def test_counts_and_coupling_and_other_boxes():
    model, x, y, _ = linear(torch.float32)
    counting = Counting(model, len(x))
    got = DDN(steps=10)(counting, stamped(x), y, L2(eps=1e3), generator=seeded(0, "ddn", range(len(x))))
    assert got.forwards.tolist() == counting.forwards.tolist()
    assert got.backwards.tolist() == counting.backwards.tolist()
    got = DDN(steps=10)(Coupled(model), x, y, L2(eps=1e3), generator=seeded(0, "ddn", range(len(x))))
    assert set(got.forwards.tolist()) == {12}
    wide = L2(eps=1e3, bounds=(-1.0, 1.0))
    moved = DDN(steps=10)(model, 2 * x - 1, y, wide, generator=seeded(0, "ddn", range(len(x))))
    assert (moved.x_adv < -0.1).any()
    assert wide.contains(moved.x_adv, 2 * x - 1).all()


@pytest.mark.parametrize("fields", [{"steps": 0}, {"step_size": 0.0}, {"radius": -1.0}, {"gamma": 1.0}, {"score": "x"}])
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        DDN(**fields)


def test_other_threats_are_refused():
    model, x, y, _ = linear()
    with pytest.raises(BadInput, match="defined for L2"):
        DDN()(model, x, y, Linf(eps=0.1), generator=seeded(0, "ddn", range(len(x))))
