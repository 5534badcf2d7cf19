"""What counts say of a share: Clopper and Pearson's bound after a fixed number of draws, and one for any stop."""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, betaincinv, betaln, xlog1py, xlogy

Counts = np.ndarray | int
# Halvings of the bracket in which the bound for any stopping time lies: it is then known to 2⁻⁶⁰.
HALVINGS = 60


def clopper_pearson_lower(k: Counts, n: Counts, alpha: float) -> np.ndarray:
    """The p at which k or more of n draws succeed with the chance alpha: the alpha quantile of Beta(k, n − k + 1).

    The true share lies below it with a chance of at most alpha (Clopper & Pearson 1934, one-sided).

    Args:
        k: successes, from 0 to n, of any shape.
        n: draws, from 1 up.
        alpha: in (0, 1).

    Returns:
        bounds in [0, 1), 0 where k is 0.
    """
    k = np.asarray(k, dtype=np.float64)
    return np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)


def fewest(n: int, alpha: float, share: float) -> int:
    """The least k whose Clopper-Pearson bound lies above a share in [0, 1); n + 1 where that of n does not."""
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        if clopper_pearson_lower(middle, n, alpha) > share:
            high = middle
        else:
            low = middle
    return high


def anytime_lower(k: Counts, t: Counts, alpha: float) -> np.ndarray:
    """The least p against which nobody betting on it from the first draw on has won 1/alpha by draw t.

    Whoever bets on p by the Beta(½, ½) mixture of all shares holds, after k successes in t draws,

        M_t(p) = B(k + ½, t − k + ½) / B(½, ½) / (p^k (1 − p)^(t − k)),

    a martingale from 1 where p is true, so that it ever reaches 1/alpha with a chance of at most alpha (Ville 1939;
    Robbins 1970). M_t is convex in log p / (1 − p) with its least value at k/t: every p below this bound and every one
    above its mirror image is refused. The true share lies below it, at any of all times t, with a chance of at most
    alpha: one may look after every draw and stop when one likes.

    Args:
        k: successes, from 0 to t, of any shape.
        t: draws so far, from 1 up.
        alpha: in (0, 1).

    Returns:
        bounds in [0, 1), 0 where k is 0.
    """
    k, t = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(t, dtype=np.float64))
    won = betaln(k + 0.5, t - k + 0.5) - betaln(0.5, 0.5) + np.log(alpha)
    low, high = np.zeros_like(k), k / t
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        refused = won >= xlogy(k, middle) + xlog1py(t - k, -middle)
        low, high = np.where(refused, middle, low), np.where(refused, high, middle)
    return np.where(k > 0, low, 0.0)


def against_even(k: Counts, n: Counts) -> np.ndarray:
    """The two-sided p-value of k successes in n draws where both outcomes are equally likely; 1 for no draws."""
    k, n = np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64)
    more = np.maximum(k, n - k)
    return np.where(n > 0, np.minimum(1.0, 2 * betainc(np.maximum(more, 1), n - more + 1, 0.5)), 1.0)
