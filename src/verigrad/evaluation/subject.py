"""What is evaluated: one classifier on one set of images under one threat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.core.threat import Threat


@dataclass(frozen=True, eq=False)
class Subject:
    """A classifier and its data.

    Args:
        model: the classifier, on any device. Chunks of the data are moved to it.
        x: (N, C, H, W) float32 images inside the threat's box. A sample's number is its row.
        y: (N,) int64 labels.
        threat: what an attacker may do.
        batch: the most images in one forward pass; the claim's batch size where predictions depend on batch-mates.
        coupled: whether predictions were found to depend on batch-mates; also true if a part of the model says so.
        seed: the run's seed, in [0, 2⁶³).

    Raises:
        BadInput: data of another shape or type, not finite or outside the box; a batch below one; a seed out of range.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    batch: int = 100
    coupled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.dim() != 4 or x.dtype != torch.float32:
            raise BadInput(f"Images must be float32 of shape (N, C, H, W). Got {x.dtype} of shape {tuple(x.shape)}.")
        if y.shape != x.shape[:1] or y.dtype != torch.int64:
            expected = f"Labels must be int64, one for each of {len(x)} images"
            raise BadInput(f"{expected}. Got {y.dtype} of shape {tuple(y.shape)}.")
        low, high = self.threat.bounds
        if not bool(((x >= low) & (x <= high)).all()):  # a NaN is in no range
            raise BadInput(f"Images must be finite and in [{low}, {high}]. Scale them, or normalise inside the model.")
        if self.batch < 1:
            raise BadInput(f"The 'batch' must be a whole number from 1 up. Got {self.batch}.")
        if not 0 <= self.seed < 2**63:
            raise BadInput(f"The 'seed' must be a whole number in [0, 2**63). Got {self.seed}.")
        object.__setattr__(self, "coupled", self.coupled or batch_coupled(self.model))

    def batch_of(self, number: int) -> tuple[int, ...]:
        """The samples of one of the fixed consecutive batches into which the whole data is cut."""
        return tuple(range(number * self.batch, min((number + 1) * self.batch, len(self.x))))
