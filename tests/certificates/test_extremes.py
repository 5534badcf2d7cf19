"""Extreme values: known laws are found again at any scale, and every fallback falls back."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import genextreme, kstest

from verigrad.certificates.extremes import block_maxima, distance, fit, loss, quantile, supremum
from verigrad.certificates.simplex import minimise


def drawn(shape: float, *, scale: float = 1.0, size: int | tuple[int, int] = 3000, seed: int = 1) -> np.ndarray:
    return genextreme.rvs(-shape, loc=3 * scale, scale=scale, size=size, random_state=seed)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2, 0.4])
def test_a_known_law_is_found_at_any_scale(shape: float, scale: float) -> None:
    law = fit(drawn(shape, scale=scale)[None])[0]
    assert law / [scale, scale, 1] == pytest.approx([3, 1, shape], abs=0.06)  # three standard errors at n = 3000


def test_a_fit_without_standardising_does_not_find_it() -> None:
    """The control: scipy's own fit, whose tolerances are absolute."""
    raw, _, _ = genextreme.fit(drawn(0.2, scale=1e-4))
    assert abs(-raw - 0.2) > 0.3


def test_the_fit_is_as_likely_as_scipys_where_scipy_works() -> None:
    samples = drawn(-0.1, size=80)
    ours, theirs = fit(samples[None])[0], genextreme.fit(samples)
    assert genextreme.logpdf(samples, -ours[2], ours[0], ours[1]).sum() >= (
        genextreme.logpdf(samples, *theirs).sum() - 1e-4
    )


def test_likelihood_quantile_and_distance_are_scipys() -> None:
    samples = drawn(0.2, size=50)
    law = np.array([[2.9, 1.2, 0.15], [2.9, 1.2, 0.0], [2.9, 6.0, -0.2]])
    seen = loss(np.stack([law[:, 0], np.log(law[:, 1]), law[:, 2]], axis=1)[None], samples[None])[0]
    for (loc, scale, shape), mine, far in zip(law, seen, distance(law, np.tile(samples, (3, 1))), strict=True):
        assert mine == pytest.approx(-genextreme.logpdf(samples, -shape, loc, scale).mean())
        assert far == pytest.approx(kstest(samples, "genextreme", args=(-shape, loc, scale)).statistic)
    assert quantile(law, np.full((3, 1), 0.999))[:, 0] == pytest.approx(genextreme.isf(0.001, -law[:, 2], *law.T[:2]))
    outside = loss(np.array([[[0.0, 0.0, -0.5]]]), np.array([[3.0]]))
    assert outside[0, 0] == np.inf  # beyond the endpoint at 2


def test_the_interval_holds_the_true_quantile_about_nine_times_in_ten() -> None:
    true = genextreme.isf(0.001, 0.1, 3, 1)
    found = [supremum(row, seed=i) for i, row in enumerate(drawn(-0.1, size=(20, 100)))]
    assert sum(one.low <= true <= one.high for one in found) >= 13
    # The control: the largest value alone is nearly always below it.
    assert sum(one.largest >= true for one in found) <= 7


def test_the_largest_is_taken_where_the_fit_means_nothing() -> None:
    heavy = drawn(0.9, size=100)
    two_lumps = np.concatenate([drawn(-0.2, size=50), 40 + drawn(-0.2, size=50)])
    few = drawn(0.0, size=9)
    flat = np.full(40, 2.5)
    for maxima in (heavy, two_lumps, few, flat, -flat, 0 * flat):
        found = supremum(maxima)
        assert not found.fitted
        assert found.value == maxima.max()
        assert np.isfinite(found[:8]).all()
    assert supremum(heavy).shape > 0.5
    assert supremum(two_lumps).fit_p < 0.05
    # The control: nothing of that is wrong here.
    good = drawn(-0.1, size=100)
    assert supremum(good).fitted
    assert supremum(good).value > good.max()
    assert supremum(good, tail="maximum").value == good.max()


def test_the_estimate_is_never_below_what_was_seen() -> None:
    for seed in range(10):
        maxima = 1 - np.random.default_rng(seed).uniform(size=30) ** 4  # piles up at its end
        assert supremum(maxima, resamples=19).value >= maxima.max()


def test_the_same_seed_gives_the_same_numbers() -> None:
    maxima = drawn(0.1, size=50)
    assert supremum(maxima, seed=3) == supremum(maxima, seed=3)
    assert supremum(maxima, seed=3).low != supremum(maxima, seed=4).low


def test_it_grows_with_its_data() -> None:
    maxima = drawn(-0.1, size=60)
    assert supremum(1e-4 * maxima).value == pytest.approx(1e-4 * supremum(maxima).value, rel=1e-6)


def test_thirty_one_fits_take_less_than_a_second() -> None:
    samples = drawn(0.1, size=(31, 50))
    start = time.process_time()
    for row in samples:
        fit(row[None])
    assert time.process_time() - start < 1.0


def test_blocks_are_disjoint_and_leave_nobody_out() -> None:
    values = torch.arange(50.0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    maxima = block_maxima(values, order, 12)
    assert len(maxima) == 4
    assert maxima.max() == 49
    assert len(set(maxima)) == 4
    assert sorted(maxima) == sorted(float(part.max()) for part in order.tensor_split(4))
    assert block_maxima(values[:5], torch.arange(5), 12).tolist() == [4.0]


def test_the_simplex_search_finds_many_minima_at_once() -> None:
    def banana(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return (1 - p[..., 0]) ** 2 + 100 * (p[..., 1] - p[..., 0] ** 2) ** 2

    found, value = minimise(banana, np.array([[-1.2, 1.0], [3.0, -2.0], [0.0, 5.0]]))
    assert found == pytest.approx(np.ones((3, 2)), abs=1e-3)
    assert value.max() < 1e-6
    _, early = minimise(banana, np.array([[-1.2, 1.0]]), steps=5)  # the control
    assert early[0] > 0.1
