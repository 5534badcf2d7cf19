"""Bounds on shares from counts, against scipy's beta law, exact binomial sums and simulation."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from verigrad.certificates.binomial import against_even, anytime_lower, clopper_pearson_lower, fewest

SHARES = (0.5, 0.7, 0.977)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (10, 10), (73, 100), (99_000, 100_000), (3, 50)])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_clopper_pearson_is_the_quantile_of_beta_and_inverts_the_binomial_tail(k, n, alpha):
    found = float(clopper_pearson_lower(k, n, alpha))
    assert found == pytest.approx(beta.ppf(alpha, k, n - k + 1), rel=1e-10)
    assert binom.sf(k - 1, n, found) == pytest.approx(alpha, rel=1e-6)


def test_its_ends():
    assert clopper_pearson_lower(np.array([0, 20]), 20, 0.01).tolist() == [0.0, pytest.approx(0.01 ** (1 / 20))]


@pytest.mark.parametrize("p", SHARES)
def test_clopper_pearson_covers_exactly_as_it_should(p):
    """The chance that the bound passes the true share, summed over all counts."""
    n, alpha = 300, 0.05
    k = np.arange(n + 1)
    missed = binom.pmf(k, n, p)[clopper_pearson_lower(k, n, alpha) > p].sum()
    assert alpha / 4 < missed <= alpha


@pytest.mark.parametrize("share", [0.0, *SHARES, 0.9999])
def test_fewest_is_the_first_count_that_passes(share):
    n, alpha = 500, 0.001
    passing = np.flatnonzero(clopper_pearson_lower(np.arange(n + 1), n, alpha) > share)
    assert fewest(n, alpha, share) == (passing[0] if len(passing) else n + 1)


@pytest.mark.parametrize(("k", "t"), [(1, 1), (20, 20), (15, 20), (970, 1000), (51_000, 100_000)])
def test_at_the_anytime_bound_the_bet_has_won_one_over_alpha(k, t):
    """Against the mixture's likelihood by quadrature, which knows no beta function."""
    alpha = 0.01
    p = float(anytime_lower(k, t, alpha))
    # ∫ q^k (1 − q)^(t − k) / (π √(q (1 − q))) dq with q = sin²(u): the arcsine law is even in u.
    u = (np.arange(400_000) + 0.5) / 400_000 * math.pi / 2
    log = 2 * k * np.log(np.sin(u)) + 2 * (t - k) * np.log(np.cos(u))
    mixture = log.max() + math.log(np.exp(log - log.max()).mean())
    own = k * math.log(p) + (t - k) * math.log1p(-p)
    assert mixture - own == pytest.approx(math.log(1 / alpha), abs=1e-6)
    assert 0 < p < k / t


def test_of_no_success_nothing_is_known():
    assert anytime_lower(np.array([0]), 50, 0.01).tolist() == [0.0]


@pytest.mark.parametrize("p", SHARES)
def test_the_anytime_bound_holds_at_all_times_at_once(p):
    alpha, runs, draws = 0.05, 2000, 200
    t = np.arange(1, draws + 1)
    k = (np.random.default_rng(0).random((runs, draws)) < p).cumsum(1)
    counts = np.minimum(np.arange(draws + 1)[:, None], t)  # (k, t), for each pair but once

    def ever_above(bound: np.ndarray) -> float:
        return (bound[k, t - 1] > p).any(1).mean()

    assert ever_above(anytime_lower(counts, t, alpha)) <= alpha
    # Clopper and Pearson's, made for one look, fails when looked at after every draw; near 1 there are few bounds.
    if p < 0.9:
        assert ever_above(clopper_pearson_lower(counts, t, alpha)) > 2 * alpha


@pytest.mark.parametrize(("k", "n"), [(5, 10), (10, 10), (0, 10), (560, 1000), (1, 3)])
def test_against_even_is_the_two_sided_binomial_test(k, n):
    assert float(against_even(k, n)) == pytest.approx(binomtest(k, n, 0.5).pvalue, rel=1e-9)


def test_no_votes_speak_against_nothing():
    assert float(against_even(0, 0)) == 1.0
