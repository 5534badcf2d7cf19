"""Rules of when to stop: the curtailed answer is the fixed one, and the error of each stays below alpha."""

import numpy as np
import pytest

from verigrad.certificates.binomial import clopper_pearson_lower
from verigrad.certificates.stopping import Betting, Staged, Stopping, four_stages

SHARES = np.array([0.5, 0.6915, 0.8413])


def followed(rule: Stopping, hits: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of streams of hits (N, n): the shares passed (N, R), and the draws that it took (N,)."""
    sums = hits.cumsum(1)
    passed = np.zeros((len(hits), len(shares)), bool)
    beyond, drawn, best, t = passed.copy(), np.zeros(len(hits), int), np.zeros(len(hits)), 0
    open_ = np.ones(len(hits), bool)
    while open_.any() and t < rule.n:
        t = rule.next_look(t)
        k, who = np.unique(sums[open_, t - 1], return_inverse=True)
        best[open_] = np.maximum(best[open_], rule.bound(k, t)[who])
        passed[open_] = best[open_, None] > shares
        beyond[open_] = rule.beyond(k, t, shares)[who]
        drawn[open_] = t
        open_ &= ~(passed | beyond).all(1)
    return passed, drawn


def streams(shares: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((len(shares), n)) < shares[:, None]


def test_the_curtailed_answer_is_the_fixed_one_and_needs_fewer_draws():
    n, alpha = 1017, 0.01
    # Many of them so close to a share that chance decides.
    own = np.concatenate([np.linspace(0.2, 0.99, 200), np.repeat(SHARES + 0.035, 100)])
    hits = streams(own, n)
    passed, drawn = followed(Staged(stages=(n,), alpha=alpha), hits, SHARES)
    fixed = clopper_pearson_lower(hits.sum(1), n, alpha)[:, None] > SHARES
    assert np.array_equal(passed, fixed)
    assert 0.2 < fixed[-300:].mean() < 0.8
    assert drawn.max() <= n
    assert drawn[own < 0.4].max() < 0.85 * n


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize(
    "rule", [Staged(stages=four_stages(2000), alpha=0.05), Betting(n=2000, alpha=0.05)], ids=["staged", "betting"]
)
def test_a_share_that_is_not_exceeded_is_passed_with_a_chance_of_at_most_alpha(rule, share):
    """Type I error at the hardest share: the true one. Below it, the error is smaller still."""
    passed, _ = followed(rule, streams(np.full(2000, share), 2000), np.array([share]))
    rate = passed.mean()
    # Three standard errors of 2,000 runs.
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    # The test is no bystander: a rule that ignores that it looks often is caught.
    fooled, _ = followed(Peeking(n=2000, alpha=0.05), streams(np.full(2000, share), 2000), np.array([share]))
    assert fooled.mean() > 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


class Peeking(Betting):
    """Clopper and Pearson's bound, made for one look, at every look. Never gives up."""

    def bound(self, k, t):
        return clopper_pearson_lower(k, t, self.alpha)

    def beyond(self, k, t, shares):
        return np.zeros((len(k), len(shares)), bool)


@pytest.mark.parametrize(
    "rule", [Staged(stages=four_stages(20_000), alpha=0.001), Betting(n=20_000, alpha=0.001)], ids=["staged", "betting"]
)
def test_clear_shares_are_decided_right_in_few_draws(rule):
    own = np.array([0.3, 0.55, 0.75, 0.9, 0.99])
    passed, drawn = followed(rule, streams(own, 20_000), SHARES)
    assert np.array_equal(passed, own[:, None] > SHARES)
    assert drawn[0] <= 200
    assert drawn.mean() < 0.15 * 20_000


def test_a_stage_counts_only_at_its_own_end():
    """A bound within a stage is the one of the stage with all draws to come failing."""
    rule = Staged(stages=(100, 1000), alpha=0.02)
    k = np.array([60])
    assert rule.bound(k, 60) == clopper_pearson_lower(60, 100, 0.01)
    assert rule.bound(k, 120) == clopper_pearson_lower(60, 1000, 0.01)


@pytest.mark.parametrize(
    ("n", "ends"), [(100_000, (100, 1000, 10_000, 100_000)), (1000, (100, 1000)), (150, (20, 150)), (11, (11,))]
)
def test_stages(n, ends):
    assert four_stages(n) == ends
    rule = Staged(stages=ends, alpha=0.01)
    looks, t = [], 0
    while t < n:
        t = rule.next_look(t)
        looks.append(t)
    assert set(ends) <= set(looks)
    assert all(t % 20 == 0 for t in looks[:-1])
