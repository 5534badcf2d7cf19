"""Projections onto a hyperplane inside the box, for every sample of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from verigrad.core.threat import Linf, Threat

# Slopes below this share of the largest one count as zero: it would take such a pixel 1e12 of another's moves.
FLAT = 1e-12


def way(x: Tensor, slope: Tensor, gap: Tensor, threat: Threat) -> Tensor:
    """The shortest d (R, C, H, W) with ⟨slope, d⟩ = gap and x + d in the box (Croce & Hein 2020, section 2.2).

    By the KKT conditions d_i = sign(gap · slope_i) · min(λ · s_i, room_i), with s_i = 1 under Linf and |slope_i| under
    L2, where room_i reaches to the box and λ solves Σ |slope_i| · min(λ · s_i, room_i) = |gap|. The sum is piecewise
    linear in λ, so that sorting its corners gives λ exactly. Where even λ = ∞ falls short, all room is used up; a slope
    of zero, or a gap that is NaN, moves nothing.

    Args:
        x: (R, C, H, W) points in the box of threat.
        slope: (R, C, H, W) float64, finite.
        gap: (R,) float64.
        threat: its norm, Linf or L2, and its box count, not its size.
    """
    low, high = threat.bounds
    top = slope.flatten(1).abs().amax(1).clamp(min=torch.finfo(slope.dtype).tiny)
    flat, start, gap = slope.flatten(1) / top[:, None], x.flatten(1).double(), (gap / top).nan_to_num(nan=0.0)
    flat = torch.where(flat.abs() < FLAT, 0.0, flat)
    size, direction = flat.abs(), flat.sign() * gap.sign()[:, None]
    room = torch.where(direction > 0, high - start, start - low) * (size > 0)
    speed = torch.ones_like(size) if isinstance(threat, Linf) else size
    corner, order = (room / torch.where(size > 0, speed, 1.0)).sort(1)
    weight = (size * speed).gather(1, order)
    used = (weight * corner).cumsum(1) - weight * corner
    growth = weight.flip(1).cumsum(1).flip(1)
    reached = (used + corner * growth >= gap.abs()[:, None]).double()
    at = (1 - reached).sum(1).long().clamp(max=corner.shape[1] - 1)[:, None]
    rest = (gap.abs()[:, None] - used.gather(1, at)).clamp(min=0)
    level = torch.minimum(rest / growth.gather(1, at).clamp(min=FLAT**2), corner.gather(1, at))
    return (direction * torch.minimum(level * speed, room)).reshape(x.shape)


def length(d: Tensor, threat: Threat) -> Tensor:
    """(R,) the length of d (R, C, H, W) in the norm of threat, Linf or L2."""
    return d.flatten(1).abs().amax(1) if isinstance(threat, Linf) else d.flatten(1).norm(dim=1)
