"""Nelder and Mead's simplex search (1965), many small problems at once; for likelihoods with a bounded support."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# From points (R, M, P) and the numbers (R,) of their problems to values (R, M); infinite outside the domain, never NaN.
Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


def minimise(
    function: Function, start: np.ndarray, *, size: float = 0.2, steps: int = 400, tolerance: float = 1e-8
) -> tuple[np.ndarray, np.ndarray]:
    """The least point (B, P) of each of B functions of P numbers, and its value (B,).

    Reflection 1, expansion 2, contraction and shrinking 1/2. All four trial points are evaluated in each step, because
    one call for the whole batch costs less than deciding row by row.

    Args:
        function: see `Function`; finite at `start`.
        start: (B, P), one corner of the first simplex; the others lie `size` away along each axis.
        steps: at most so many.
        tolerance: a simplex has ended when the values at its corners agree to so much.
    """
    corners = np.concatenate([start[:, None], start[:, None] + size * np.eye(start.shape[1])], axis=1)
    everyone = np.arange(len(start))
    values = function(corners, everyone)
    found, least = start.copy(), values[:, 0].copy()
    rows = everyone
    for _ in range(steps):
        order = np.argsort(values, axis=1)
        corners = np.take_along_axis(corners, order[:, :, None], axis=1)
        values = np.take_along_axis(values, order, axis=1)
        found[rows], least[rows] = corners[:, 0], values[:, 0]
        # What has ended is not evaluated again: a few slow ones would hold up hundreds.
        going = values[:, -1] - values[:, 0] > tolerance
        if not going.any():
            break
        rows, corners, values = rows[going], corners[going], values[going]
        corners, values = _step(function, corners, values, rows)
    return found, least


def _step(
    function: Function, corners: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One step from corners in rising order of their values."""
    centre = corners[:, :-1].mean(axis=1)
    away = centre - corners[:, -1]
    trials = np.stack([centre + by * away for by in (1.0, 2.0, 0.5, -0.5)], axis=1)
    at = function(trials, rows)
    reflected, expanded, outside, inside = at.T
    best, second, worst = values[:, 0], values[:, -2], values[:, -1]
    # 0 reflect, 1 expand, 2 contract outside, 3 contract inside, -1 shrink.
    near = np.where(inside < worst, 3, -1)
    far = np.where(outside <= reflected, 2, -1)
    choice = np.where(reflected < worst, far, near)
    choice = np.where(reflected < second, 0, choice)
    choice = np.where((reflected < best) & (expanded < reflected), 1, choice)
    each = np.arange(len(corners))
    corners, values = corners.copy(), values.copy()
    taken = choice >= 0
    corners[taken, -1] = trials[each, choice][taken]
    values[taken, -1] = at[each, choice][taken]
    if not taken.all():
        shrunk = (corners + corners[:, :1]) / 2
        corners = np.where(taken[:, None, None], corners, shrunk)
        values = np.where(taken[:, None], values, function(corners, rows))
    return corners, values
