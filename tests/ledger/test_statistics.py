"""Intervals against their defining equations, and their coverage summed exactly over the binomial distribution."""

import math

import numpy as np
import pytest

from verigrad.ledger.statistics import clopper_pearson, wilson

CASES = [(1, 7), (3, 10), (50, 100), (199, 200), (17, 1000)]


def chance(n: int, p: float) -> np.ndarray:
    """P(X = k) for k = 0 ... n."""
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


@pytest.mark.parametrize(("k", "n"), CASES)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_clopper_pearson_meets_its_definition(k, n, confidence):
    low, high = clopper_pearson(k, n, confidence)
    assert chance(n, low)[k:].sum() == pytest.approx((1 - confidence) / 2, rel=1e-8)
    assert chance(n, high)[: k + 1].sum() == pytest.approx((1 - confidence) / 2, rel=1e-8)


@pytest.mark.parametrize(("k", "n"), CASES)
def test_wilson_meets_its_definition(k, n):
    z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
    for p in wilson(k, n):
        assert abs(k / n - p) == pytest.approx(z * math.sqrt(p * (1 - p) / n), rel=1e-9)


@pytest.mark.parametrize("n", [5, 30, 200])
def test_coverage(n):
    shares = np.linspace(0.005, 0.995, 199)
    covered = {}
    for interval in (clopper_pearson, wilson):
        ends = np.array([interval(k, n) for k in range(n + 1)])
        covered[interval] = np.array(
            [chance(n, p)[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum() for p in shares.tolist()]
        )
    assert covered[clopper_pearson].min() >= 0.95
    assert covered[wilson].min() < 0.95, "the control: Wilson's interval promises no more than the mean"
    assert abs(covered[wilson].mean() - 0.95) < 0.015


def test_coverage_by_simulation():
    draws = np.random.default_rng(0).binomial(60, 0.1, size=4000)
    inside = [low <= 0.1 <= high for low, high in (clopper_pearson(int(k), 60) for k in draws)]
    assert 0.95 <= np.mean(inside) < 0.99


@pytest.mark.parametrize("interval", [clopper_pearson, wilson])
def test_edges(interval):
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 50).low == 0.0
    assert interval(50, 50).high == 1.0
    assert 0 < interval(0, 50).high < 0.08
    assert interval(50, 50).low == pytest.approx(1 - interval(0, 50).high, rel=1e-12)
    low, high = interval(1, 10**6)
    assert 0 < low < 1e-6 < high < 1e-5


def test_clopper_pearson_of_none_is_the_rule_of_three():
    assert clopper_pearson(0, 100).high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, -1, 0.95), (1, 5, 1.0), (1, 5, 95)]
)
def test_bad_input(k, n, confidence):
    for interval in (clopper_pearson, wilson):
        with pytest.raises(ValueError, match="Got"):
            interval(k, n, confidence)
