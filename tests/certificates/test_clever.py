"""CLEVER: exact on planes; its fit finds known laws at any scale."""

import numpy as np
import pytest
import torch
from estimate_models import PassCount, Planes, images, small_net
from scipy.stats import weibull_max

from verigrad import catalog
from verigrad.certificates.clever import Clever, locations
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


def quick(**settings: object) -> Clever:
    return Clever(**{"groups": 6, "points": 3, **settings})


@pytest.mark.parametrize("norm", DUAL)
def test_planes_give_the_exact_distance(norm: str) -> None:
    """Each target has a constant slope, so the least of the targets is the distance."""
    model, x = Planes(), images(20)
    y = model(x).argmax(1)
    found = quick(norm=norm, eps=5.0)(model, x, y, generator=seeded(0, "c", range(20)))
    exact = model.distances(x, y, DUAL[norm])
    torch.testing.assert_close(found.radius, exact, rtol=1e-6, atol=1e-9)
    # The control: the likeliest target alone is not always the nearest.
    alone = quick(norm=norm, eps=5.0, targets=1)(model, x, y, generator=seeded(0, "c", range(20)))
    assert (alone.radius >= found.radius - 1e-9).all()
    assert (alone.radius > exact + 1e-6).any()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_known_location_is_found_at_any_scale(scale: float) -> None:
    samples = weibull_max.rvs(3.0, loc=10 * scale, scale=2 * scale, size=(4, 500), random_state=0)
    found, fitted = locations(samples)
    assert fitted.all()
    assert found / scale == pytest.approx(10, abs=0.25)
    assert (found > samples.max(axis=1)).all()
    # The control: the sample's largest is much less wrong only where the tail is thin; here it is not.
    assert abs(samples[:, :25].max(axis=1).mean() / scale - 10) > 0.25


def test_the_largest_is_taken_where_the_fit_fails_its_test() -> None:
    lumps = np.concatenate(
        [np.random.default_rng(0).uniform(0, 0.01, 60), np.random.default_rng(1).uniform(9, 9.01, 60)]
    )
    flat, few = np.full(120, 3.0), np.array([1.0, 2.0, 3.0])
    for row in (lumps, flat, 0 * flat, few):
        found, fitted = locations(row[None])
        assert not fitted[0]
        assert found[0] == row.max()
    # The control: a good sample among them is fitted.
    good = weibull_max.rvs(3.0, loc=10, scale=2, size=120, random_state=0)
    _, both = locations(np.stack([lumps, good]))
    assert both.tolist() == [False, True]


def test_a_wrong_prediction_has_radius_zero_and_none_exceeds_the_ball() -> None:
    model, x = small_net(), images(12)
    y = model(x).argmax(1)
    y[:4] = (y[:4] + 1) % 3
    found = quick(eps=0.05)(model, x, y, generator=seeded(0, "c", range(12)))
    assert (found.radius[:4] == 0).all()
    assert (found.radius[4:] > 0).all()
    assert found.radius.max() <= 0.05
    assert quick(eps=0.5)(model, x, y, generator=seeded(0, "c", range(12))).radius.max() > 0.05  # the control


def test_each_image_is_certified_alone() -> None:
    model, x = small_net(), images(12)
    y = model(x).argmax(1)
    whole = quick()(model, x, y, generator=seeded(0, "c", range(12))).radius
    part = quick(batch=2)(model, x[5:9], y[5:9], generator=seeded(0, "c", range(5, 9))).radius
    torch.testing.assert_close(whole[5:9], part, rtol=1e-6, atol=0)
    assert torch.equal(whole, quick()(model, x, y, generator=seeded(0, "c", range(12))).radius)
    # The control: other streams see other points.
    assert not torch.allclose(whole, quick()(model, x, y, generator=seeded(1, "c", range(12))).radius)


def test_passes_are_counted() -> None:
    counted = PassCount(small_net())
    found = quick()(counted, images(10), torch.zeros(10).long(), generator=seeded(0, "c", range(10)))
    assert counted.forwards == found.forwards.sum() == 10 * (1 + 18)
    assert found.backwards.sum() == 10 * 18 * 2  # two other classes
    assert counted.backwards == found.backwards.sum()


def test_bad_settings_are_refused_and_good_ones_have_a_spec() -> None:
    for wrong in ({"norm": "l0"}, {"eps": -1.0}, {"groups": 0}, {"targets": -1}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            Clever(**wrong)
    bound = catalog.build("certificate", "clever:groups=5")
    assert bound == Clever(groups=5)
    assert catalog.build("certificate", catalog.describe(bound)) == bound
