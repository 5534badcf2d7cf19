"""CW-Linf in its authors' form, against one image at a time in NumPy and exact distances."""

import numpy as np
import pytest
from controls import best_linf
from nearest_errors import ask, exact, linear, tanh_net

from verigrad.attacks.carlini_wagner_linf import CarliniWagnerLinf2017
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


def by_the_book(model, x: np.ndarray, label: int, steps: int, lr: float) -> tuple[np.ndarray, float, int]:
    w, point, tau, c, best, least, looks = np.arctanh(0.999999 * (2 * x - 1)), x, 1.0, 0.001, x, np.inf, 0
    while tau > 1 / 256 and c <= 20:
        m = v = t = count = 0
        while c <= 20:
            value, g, wrong = ask(model, point, label)
            looks += 1
            gap = point - x
            if wrong and np.abs(gap).max() < least:
                best, least = point, np.abs(gap).max()
            if wrong and np.maximum(np.abs(gap) - tau, 0).sum() + c * max(-value, 0) < 1e-4 * c:
                tau = 0.9 * min(tau, np.abs(gap).max())
                w = np.arctanh(0.999999 * (2 * point - 1))
                point = (np.tanh(w) + 1) / 2
                break
            slope = (np.sign(gap) * (np.abs(gap) > tau) - c * (value < 0) * g) * (1 - (2 * point - 1) ** 2) / 2
            t, count = t + 1, count + 1
            m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
            w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            point = (np.tanh(w) + 1) / 2
            if count == steps:
                c, count = 2 * c, 0
    return best, least, looks


def test_same_points_and_passes_as_one_image_at_a_time():
    model, x, y = tanh_net(5)
    attack = CarliniWagnerLinf2017(steps=20, step_size=0.02)
    got = attack(model, x, y, Linf(eps=1.0), generator=seeded(0, "cw", range(len(x))))
    for i in range(len(x)):
        best, least, looks = by_the_book(model, x[i].numpy(), int(y[i]), 20, 0.02)
        assert bool(got.broken[i]) == np.isfinite(least)
        assert np.abs(got.x_adv[i].numpy() - best).max() < 1e-6
        assert int(got.forwards[i]) == looks + 1
    assert got.broken.any()


def test_near_the_exact_distance():
    model, x, y, _ = linear()
    x = 0.1 + 0.8 * x
    lead = model.threshold - x.flatten(1) @ model.w.double()
    distance = exact(model, x, lead, best_linf)
    got = CarliniWagnerLinf2017()(model, x, y, Linf(eps=1.0), generator=seeded(0, "cw", range(len(x))))
    assert got.broken.all()
    assert (got.distance <= 1.12 * distance + 1 / 256).all()
    assert (got.distance >= distance * (1 - 1e-6)).all()


def test_the_constant_grows_where_the_first_is_too_small():
    model, x, y, _ = linear()
    few = CarliniWagnerLinf2017(steps=30, constant=1e-6, largest_constant=1e-6, step_size=0.01)
    many = CarliniWagnerLinf2017(steps=30, constant=1e-6, constant_factor=100.0, step_size=0.01)
    found = [
        int(attack(model, x, y, Linf(eps=1.0), generator=seeded(0, "cw", range(len(x)))).broken.sum())
        for attack in (few, many)
    ]
    assert found[0] < found[1]


@pytest.mark.parametrize(
    "fields",
    [{"steps": 0}, {"step_size": 0.0}, {"constant": -1.0}, {"largest_constant": 1e-9}, {"constant_factor": 1.0},
     {"tau_decay": 1.0}],
)  # fmt: skip
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        CarliniWagnerLinf2017(**fields)


def test_other_threats_are_refused():
    model, x, y, _ = linear()
    with pytest.raises(BadInput, match="defined for Linf"):
        CarliniWagnerLinf2017()(model, x, y, L2(eps=1.0), generator=seeded(0, "cw", range(len(x))))
