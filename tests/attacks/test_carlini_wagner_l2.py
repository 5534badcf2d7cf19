"""CW-L2 against one image at a time in NumPy, and against exact distances."""

import numpy as np
import pytest
import torch
from controls import Coupled, Linear, best_l2
from nearest_errors import ask, exact, linear, tanh_net

from verigrad.attacks.carlini_wagner_l2 import CarliniWagnerL2
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


def by_the_book(model, x: np.ndarray, label: int, steps: int, searches: int, confidence: float, early: bool):
    """The nearest error over all looks, its distance, and how many looks there were."""
    start = np.arctanh(0.999999 * (2 * x - 1))
    best, least, looks, c, low, high = x, np.inf, 0, 0.1, 0.0, np.inf
    for _ in range(searches):
        w, m, v, found, lowest, stalled = start, 0.0, 0.0, False, np.inf, 0
        for t in range(1, steps + 1):
            point = x if t == 1 else (np.tanh(w) + 1) / 2
            value, g, wrong = ask(model, point, label)
            looks += 1
            if wrong and value >= confidence:
                found = True
                if np.linalg.norm(point - x) < least:
                    best, least = point, np.linalg.norm(point - x)
            hinge = max(confidence - value, 0)
            loss = ((point - x) ** 2).sum() + c * hinge
            if early and (t - 1) % np.ceil(steps / 10) == 0:
                stalled, lowest = (0, loss) if loss <= 0.9999 * lowest else (stalled + 1, lowest)
                if stalled == 3:
                    break
            slope = (2 * (point - x) - c * (hinge > 0) * g) * (1 - (2 * point - 1) ** 2) / 2
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        low, high = (low, c) if found else (c, high)
        c = (low + high) / 2 if np.isfinite(high) else 10 * c
    return best, least, looks


@pytest.mark.parametrize(("steps", "searches", "confidence", "early"), [(60, 3, 0.0, False), (100, 2, 0.5, True)])
def test_same_points_and_passes_as_one_image_at_a_time(steps: int, searches: int, confidence: float, early: bool):
    model, x, y = tanh_net()
    attack = CarliniWagnerL2(steps=steps, search_steps=searches, confidence=confidence, abort_early=early)
    got = attack(model, x, y, L2(eps=1e3), generator=seeded(0, "cw", range(len(x))))
    ends = set()
    for i in range(len(x)):
        best, least, looks = by_the_book(model, x[i].numpy(), int(y[i]), steps, searches, confidence, early)
        assert bool(got.broken[i]) == np.isfinite(least)
        # Adam divides by the size of a gradient: where that is small, roundings of the product are what remains.
        assert np.abs(got.x_adv[i].numpy() - best).max() < 1e-6
        assert int(got.forwards[i]) == looks + 1
        assert int(got.backwards[i]) == looks
        ends.add(looks)
    assert got.broken.any()
    assert len(ends) > 1 or not early


def test_within_a_tenth_of_the_exact_distance_whatever_the_sign_of_the_logits():
    model, x, y, lead = linear()
    x = 0.1 + 0.8 * x  # off the border, which is far away in w
    lead = model.threshold - x.flatten(1) @ model.w.double()
    shifted = torch.nn.Sequential(model, torch.nn.Linear(2, 2).double())
    with torch.no_grad():
        shifted[1].weight.copy_(torch.eye(2))
        shifted[1].bias.fill_(-50.0)
    distance = exact(model, x, lead, best_l2)
    for net in (model, shifted):
        got = CarliniWagnerL2()(net, x, y, L2(eps=1e3), generator=seeded(0, "cw", range(len(x))))
        assert got.broken.all()
        assert (got.distance <= 1.1 * distance).all()
        assert (got.distance >= distance * (1 - 1e-6)).all()


def test_pixels_on_the_border_can_move():
    model, x, y, _ = linear()
    black = torch.zeros_like(x[:1])
    positive = Linear(model.w.abs(), 0.5)
    got = CarliniWagnerL2(steps=300, search_steps=4, step_size=0.05)(
        positive, black, y[:1], L2(eps=1e3), generator=seeded(0, "cw", [0])
    )
    assert got.broken.all()
    assert float(got.distance) <= 1.1 * 0.5 / float(model.w.detach().norm())


def test_misclassified_samples_take_one_pass_also_with_confidence():
    model, x, y, _ = linear()
    y = 1 - model(x).argmax(1)
    got = CarliniWagnerL2(confidence=5.0)(model, x, y, L2(eps=0.1), generator=seeded(0, "cw", range(len(x))))
    assert got.broken.all()
    assert (got.distance == 0).all()
    assert set(got.backwards.tolist()) == {1}


def test_a_coupled_batch_goes_through_every_step_together():
    model, x, y, _ = linear()
    attack = CarliniWagnerL2(steps=10, search_steps=2)
    got = attack(Coupled(model), x, y, L2(eps=1e3), generator=seeded(0, "cw", range(len(x))))
    assert set(got.forwards.tolist()) == {21}


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"search_steps": 0}, {"constant": 0.0}, {"confidence": -1.0}, {"step_size": torch.nan}]
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        CarliniWagnerL2(**fields)


def test_other_threats_are_refused():
    model, x, y, _ = linear()
    with pytest.raises(BadInput, match="defined for L2"):
        CarliniWagnerL2()(model, x, y, Linf(eps=0.1), generator=seeded(0, "cw", range(len(x))))
