"""When drawing may stop: rules that bound a share from below while its draws are still coming in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from verigrad.certificates.binomial import anytime_lower, clopper_pearson_lower, fewest

# Draws between two looks: a tenth of those made, in whole steps of the first, up to the last.
FIRST, LAST = 20, 1000


class Stopping(Protocol):
    """A frozen dataclass. Each look is a count of successes k (N,) in the first t draws, t from `next_look`."""

    @property
    def n(self) -> int:
        """The most draws."""
        ...

    def next_look(self, t: int) -> int:
        """The number of draws at the look after the one at t."""
        ...

    def bound(self, k: np.ndarray, t: int) -> np.ndarray:
        """(N,) lower bounds of the shares. The largest over all looks up to any stop is wrong with a chance of at most
        alpha."""
        ...

    def beyond(self, k: np.ndarray, t: int, shares: np.ndarray) -> np.ndarray:
        """(N, R) where it is idle to go on, as no later bound will lie above a share (R,)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Clopper and Pearson's bound at the end of each stage, with alpha divided evenly among the stages.

    Draws that have not come yet count as failures, so that a bound stands before its stage ends and is the one of
    the whole stage at its end. With one stage this is the fixed protocol curtailed: `beyond` is then certain, and every
    answer at a share is the one that all n draws would give. With more, it also gives up where the bound for
    any stopping time, turned round, says that the share is not reached; giving up costs no alpha.

    Args:
        stages: draws at their ends, rising; whole multiples of 20 but for the last.
        alpha: in (0, 1).
    """

    stages: tuple[int, ...]
    alpha: float

    @property
    def n(self) -> int:
        return self.stages[-1]

    @property
    def each(self) -> float:
        return self.alpha / len(self.stages)

    def next_look(self, t: int) -> int:
        return min(_step(t), next(end for end in self.stages if end > t))

    def bound(self, k: np.ndarray, t: int) -> np.ndarray:
        return clopper_pearson_lower(k, next(end for end in self.stages if end >= t), self.each)

    def beyond(self, k: np.ndarray, t: int, shares: np.ndarray) -> np.ndarray:
        spare = np.array(
            [max(end - _fewest(end, self.each, float(share)) for end in self.stages if end >= t) for share in shares]
        )
        certain = (t - k)[:, None] > spare
        return certain | _unlikely(k, t, self.alpha, shares) if len(self.stages) > 1 else certain


@dataclass(frozen=True, kw_only=True)
class Betting:
    """The bound for any stopping time, looked at as often as one likes; given up where, turned round, it refuses.

    Args:
        n: the most draws.
        alpha: in (0, 1).
    """

    n: int
    alpha: float

    def next_look(self, t: int) -> int:
        return min(_step(t), self.n)

    def bound(self, k: np.ndarray, t: int) -> np.ndarray:
        return anytime_lower(k, t, self.alpha)

    def beyond(self, k: np.ndarray, t: int, shares: np.ndarray) -> np.ndarray:
        return _unlikely(k, t, self.alpha, shares)


def four_stages(n: int) -> tuple[int, ...]:
    """A thousandth, a hundredth and a tenth of n draws, and all: those with at least 20 draws, in steps of 20."""
    ends = [round(n / part / FIRST) * FIRST for part in (1000, 100, 10)]
    return (*(end for end in dict.fromkeys(ends) if FIRST <= end < n), n)


def _step(t: int) -> int:
    return t + min(max(t // 10 // FIRST * FIRST, FIRST), LAST)


def _unlikely(k: np.ndarray, t: int, alpha: float, shares: np.ndarray) -> np.ndarray:
    return (1 - anytime_lower(t - k, t, alpha))[:, None] <= shares


_fewest = lru_cache(maxsize=1024)(fewest)
