"""Per-sample attack losses on logits. Higher is nearer to an error; `margin` and `dlr` are positive only on one.

Every score takes logits (B, K) and labels y (B,) and returns (B,). A targeted score takes wrong classes target (B,)
besides, and is higher the nearer the prediction is to target.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.core.errors import BadInput

Score = Callable[[Tensor, Tensor], Tensor]
TargetedScore = Callable[[Tensor, Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """log Σ_j exp z_j - z_y. Its gradient vanishes where the prediction is saturated."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j≠y} z_j - z_y (Carlini & Wagner 2017, f₆ without the hinge). It does not saturate."""
    at_y = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - at_y


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: margin / (z_π1 - z_π3) (Croce & Hein 2020, Eq. 6). Needs three classes."""
    if logits.shape[1] < 3:
        raise BadInput(f"The score 'dlr' needs at least 3 classes. Got {logits.shape[1]}. Use 'margin'.")
    ordered = logits.sort(1, descending=True).values
    return margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


SCORES: dict[str, Score] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def cross_entropy_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - log Σ_j exp z_j, whatever y is. Its gradient stays large until target is predicted."""
    del y
    return -F.cross_entropy(logits, target, reduction="none")


def margin_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y; positive only on an error, though not on every error."""
    both = logits.gather(1, torch.stack([target, y], dim=1))
    return both[:, 0] - both[:, 1]


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(z_t - z_y) / (z_π1 - (z_π3 + z_π4)/2) (Croce & Hein 2020, Eq. 7). Needs four classes."""
    if logits.shape[1] < 4:
        raise BadInput(f"The targeted score 'dlr' needs at least 4 classes. Got {logits.shape[1]}. Use 'margin'.")
    ordered = logits.sort(1, descending=True).values
    return margin_targeted(logits, y, target) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12)


TARGETED_SCORES: dict[str, TargetedScore] = {
    "cross_entropy": cross_entropy_targeted,
    "margin": margin_targeted,
    "dlr": dlr_targeted,
}
