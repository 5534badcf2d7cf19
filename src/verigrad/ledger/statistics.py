"""Intervals for a share k of n, such as an accuracy on n samples."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.special import betaincinv, ndtri


class Interval(NamedTuple):
    """Two ends in [0, 1]."""

    low: float
    high: float


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval: its coverage is at least `confidence` for every true share (Clopper & Pearson 1934).

    The ends are the quantiles α/2 of Beta(k, n - k + 1) and 1 - α/2 of Beta(k + 1, n - k), with α = 1 - confidence.

    Args:
        k: successes, from 0 to n.
        n: trials, from 0 up; of none nothing is known, so the interval is [0, 1].
        confidence: in (0, 1).

    Raises:
        ValueError: for anything outside these ranges.
    """
    _check(k, n, confidence)
    half = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, half))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - half))
    return Interval(low, high)


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The score interval, whose *mean* coverage is near `confidence` (Wilson 1927).

    With z the normal quantile of 1 - α/2 and p = k/n its ends are (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    Arguments and errors as in `clopper_pearson`.
    """
    _check(k, n, confidence)
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = float(ndtri(1 - (1 - confidence) / 2)) ** 2
    p = k / n
    centre = p + z2 / (2 * n)
    reach = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
    # At k = 0 and k = n one end is 0 or 1 exactly; rounding must not hide that.
    low = 0.0 if k == 0 else max(0.0, (centre - reach) / (1 + z2 / n))
    high = 1.0 if k == n else min(1.0, (centre + reach) / (1 + z2 / n))
    return Interval(low, high)


def _check(k: int, n: int, confidence: float) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"A share needs whole numbers with 0 <= k <= n. Got k={k} and n={n}.")
    if not 0 < confidence < 1:
        raise ValueError(f"The 'confidence' of an interval must lie in (0, 1). Got {confidence}. Did you mean 0.95?")
