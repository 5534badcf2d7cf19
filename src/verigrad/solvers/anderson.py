"""Fixed points z = g(z) of a batch, each sample on its own, by Anderson's acceleration.

With the last m iterates z_i and residuals r_i = g(z_i) − z_i, find α with Σ α_i = 1 that minimises ‖Σ α_i r_i‖ and
go on at Σ α_i g(z_i) (Anderson 1965; Walker & Ni 2011, SIAM J. Numer. Anal. 49, Algorithm AA). On linear maps it is
GMRES.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class FixedPoint(NamedTuple):
    """z: (B, D). residual: (B,), ‖g(z) − z‖ / (1 + ‖g(z)‖). iterations: evaluations of g."""

    z: Tensor
    residual: Tensor
    iterations: int


def fixed_point(
    g: Callable[[Tensor], Tensor], z: Tensor, *, memory: int, iterations: int, tolerance: float
) -> FixedPoint:
    """Iterate from z (B, D) until every sample's residual is at most `tolerance`, or for so many `iterations`."""
    kept = min(memory, z.shape[1]) + 1
    values, residuals = [], []
    best, best_residual = z, torch.full((len(z),), float("inf"), dtype=z.dtype, device=z.device)
    calls = 0
    while calls < iterations:
        calls += 1
        value = g(z)
        residual = value - z
        size = torch.linalg.vector_norm(residual, dim=1) / (1 + torch.linalg.vector_norm(value, dim=1))
        better = size < best_residual
        best = torch.where(better[:, None], value, best)
        best_residual = torch.where(better, size, best_residual)
        if bool((best_residual <= tolerance).all()):
            break
        values, residuals = [*values, value][-kept:], [*residuals, residual][-kept:]
        z = _mixed(values, residuals)
    return FixedPoint(best, best_residual, calls)


def _mixed(values: list[Tensor], residuals: list[Tensor]) -> Tensor:
    """Σ α_i g(z_i), with α from the least-squares problem in differences of residuals."""
    if len(values) == 1:
        return values[0]
    r = residuals[-1]
    dr = torch.stack([b - a for a, b in pairwise(residuals)], -1)  # (B, D, m)
    dv = torch.stack([b - a for a, b in pairwise(values)], -1)
    scale = torch.linalg.vector_norm(dr, dim=1, keepdim=True).clamp(min=torch.finfo(r.dtype).tiny)
    q, upper = torch.linalg.qr(dr / scale)
    upper = upper + torch.finfo(r.dtype).eps * torch.eye(upper.shape[-1], dtype=r.dtype, device=r.device)
    gamma = torch.linalg.solve_triangular(upper, q.mT @ r[:, :, None], upper=True)
    step = (dv / scale) @ gamma
    return torch.where(step[:, :, 0].isfinite().all(1, keepdim=True), values[-1] - step[:, :, 0], values[-1])
