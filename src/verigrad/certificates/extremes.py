"""Generalised extreme values: what the largest of many numbers may be, from the maxima of disjoint blocks.

    F(x) = exp(−(1 + ξ (x − loc)/scale)^(−1/ξ)),      ξ → 0: exp(−exp(−(x − loc)/scale))      (Coles 2001, Eq. 3.2)

ξ < 0 has an endpoint, ξ > 0 a heavy tail. scipy.stats.genextreme calls c what is −ξ here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from verigrad.certificates.simplex import minimise

Tail = Literal["gev", "maximum"]
# The quantile taken as bound: exceeded by one block maximum in a thousand (Finlay & Oberman 2021, p = 0.001).
P = 0.001
# Fewer maxima say nothing of a tail with three parameters.
LEAST_BLOCKS = 10
# Above it the variance of the fitted law is infinite, and its quantile is no estimate of anything.
HEAVY = 0.5
# The fit is refused where a true fit would be as bad in one of twenty cases.
LEVEL = 0.05
# Shapes from which the likelihood is climbed; below ξ = −1 it has no maximum (Coles 2001, section 3.3.1).
STARTS = (-0.4, -0.1, 0.0, 0.3)
LOWEST, HIGHEST = -0.999, 2.0
EULER = 0.5772156649015329


class Extreme(NamedTuple):
    """An estimate of a supremum.

    `value` is the upper quantile of the fitted law, never below the largest number seen, or that number itself where no
    fit is used (`fitted` False). `low` and `high` are the 5 and 95 % points of the quantile under a parametric
    bootstrap, `shape` is ξ with its own interval, `fit_p` the bootstrap's p-value of the Kolmogorov-Smirnov distance,
    `blocks` the number of maxima. Without enough maxima, or without spread, all three values are the largest.
    """

    value: float
    low: float
    high: float
    largest: float
    shape: float
    shape_low: float
    shape_high: float
    fit_p: float
    blocks: int
    fitted: bool

    def facts(self, name: str, at: str = "") -> dict[str, float]:
        """Its numbers for `Certified.facts`, called after `name`; `at` ends each name, such as "(0.1)"."""
        return {
            f"{name}{at}": self.value,
            f"{name}_low{at}": self.low,
            f"{name}_high{at}": self.high,
            f"{name}_largest{at}": self.largest,
            f"{name}_xi{at}": self.shape,
            f"{name}_xi_low{at}": self.shape_low,
            f"{name}_xi_high{at}": self.shape_high,
            f"{name}_fit_p{at}": self.fit_p,
            f"{name}_fitted{at}": float(self.fitted),
            f"{name}_blocks{at}": float(self.blocks),
        }


def block_maxima(values: Tensor, order: Tensor, block: int) -> np.ndarray:
    """Maxima of disjoint blocks of about `block` of values (N,), none left out; order (N,) is who sits with whom."""
    count = max(1, len(values) // block)
    return np.array([float(part.max()) for part in values[order].double().cpu().tensor_split(count)])


def supremum(maxima: np.ndarray, *, tail: Tail = "gev", resamples: int = 99, seed: int = 0) -> Extreme:
    """The estimated supremum behind block maxima (n,).

    The largest is taken where there are under 10 maxima or no spread, where ξ > 0.5, where the fit fails its test at
    5 %, and where `tail` asks for it.
    """
    largest = float(maxima.max())
    count = len(maxima)
    if tail == "maximum" or count < LEAST_BLOCKS or maxima.std() <= 1e-6 * abs(maxima).max():
        return Extreme(largest, largest, largest, largest, 0.0, 0.0, 0.0, 1.0, count, False)
    law = fit(maxima[None])
    uniform = np.random.Generator(np.random.PCG64(seed)).uniform(size=(resamples, count))
    drawn = quantile(law, uniform)
    again = fit(drawn, starts=(float(law[0, 2]),))
    bounds = quantile(again, np.full((resamples, 1), 1 - P))[:, 0]
    as_bad = (distance(again, drawn) >= distance(law, maxima[None])).sum()
    p = float((1 + as_bad) / (1 + resamples))
    shape = float(law[0, 2])
    fitted = shape <= HEAVY and p >= LEVEL
    bound = max(float(quantile(law, np.array([[1 - P]]))[0, 0]), largest)
    low, high = np.quantile(bounds, (0.05, 0.95))
    shape_low, shape_high = np.quantile(again[:, 2], (0.05, 0.95))
    return Extreme(
        value=bound if fitted else largest,
        low=float(low),
        high=float(high),
        largest=largest,
        shape=shape,
        shape_low=float(shape_low),
        shape_high=float(shape_high),
        fit_p=p,
        blocks=count,
        fitted=fitted,
    )


def fit(samples: np.ndarray, starts: tuple[float, ...] = STARTS) -> np.ndarray:
    """(B, 3) loc, scale and ξ of greatest likelihood for each row of samples (B, n) with some spread.

    Rows are standardised first: a search with absolute tolerances fails on data of size 1e-3. The best of the
    searches from several ξ is kept.
    """
    mean, spread = samples.mean(axis=1, keepdims=True), samples.std(axis=1, keepdims=True)
    z = np.repeat((samples - mean) / spread, len(starts), axis=0)
    shape = np.tile(starts, len(samples))
    scale = np.sqrt(6) / np.pi
    loc = np.full(len(z), -EULER * scale)
    # Wide enough that every number lies inside the support.
    reach = np.where(shape < 0, -shape * (z.max(axis=1) - loc), shape * (loc - z.min(axis=1)))
    start = np.stack([loc, np.log(np.maximum(scale, 1.1 * reach)), shape], axis=1)
    found, value = minimise(lambda law, rows: loss(law, z[rows]), start)
    best = value.reshape(len(samples), -1).argmin(axis=1)
    law = found.reshape(len(samples), len(starts), 3)[np.arange(len(samples)), best]
    return np.stack([mean[:, 0] + spread[:, 0] * law[:, 0], spread[:, 0] * np.exp(law[:, 1]), law[:, 2]], axis=1)


def loss(law: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mean negative log-likelihood (B, M) of rows z (B, n) under laws (B, M, 3) of loc, log scale and ξ."""
    loc, log_scale, shape = (law[:, :, i, None] for i in range(3))
    with np.errstate(all="ignore"):
        log_u = _log_u((z[:, None] - loc) / np.exp(log_scale), shape)
        value = (log_scale + shape * log_u + log_u + np.exp(-log_u)).mean(axis=2)
    shape = shape[:, :, 0]
    return np.where(np.isfinite(value) & (shape > LOWEST) & (shape < HIGHEST), value, np.inf)


def _log_u(s: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """log(1 + ξ s)/ξ, s itself at ξ = 0; NaN outside the support."""
    flat = np.abs(shape) < 1e-8
    safe = np.where(flat, 1.0, shape)
    return np.where(flat, s, np.log1p(safe * s) / safe)


def quantile(law: np.ndarray, u: np.ndarray) -> np.ndarray:
    """x (B, n) with F(x) = u, for laws (B or 1, 3) of loc, scale and ξ, and u (B, n) in (0, 1)."""
    loc, scale, shape = (law[:, i, None] for i in range(3))
    flat = np.abs(shape) < 1e-8
    safe = np.where(flat, 1.0, shape)
    log_u = -np.log(-np.log(u))
    return loc + scale * np.where(flat, log_u, np.expm1(safe * log_u) / safe)


def distance(law: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(B,) Kolmogorov-Smirnov distance of rows (B, n) from laws (B, 3)."""
    loc, scale, shape = (law[:, i, None] for i in range(3))
    with np.errstate(all="ignore"):
        below = np.exp(-np.exp(-_log_u((np.sort(samples, axis=1) - loc) / scale, shape)))
    # The law was fitted to these rows, so that what lies outside its support does so by rounding.
    below = np.where(np.isnan(below), np.where(shape < 0, 1.0, 0.0), below)
    return gap_to_steps(below)


def gap_to_steps(below: np.ndarray) -> np.ndarray:
    """(B,) the largest distance of rising F values (B, n) from the empirical steps."""
    n = below.shape[1]
    steps = np.arange(n)
    return np.maximum((steps + 1) / n - below, below - steps / n).max(axis=1)
