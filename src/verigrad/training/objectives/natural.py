"""Cross-entropy on the images as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.seeds import SampleGenerator
from verigrad.training.objectives.base import Loss, accuracy


@dataclass(frozen=True, kw_only=True)
class Natural:
    """mean_i ( log Σ_j exp z_ij - z_iy ). Parts: "cross_entropy" and "accuracy"."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        del generator  # nothing is drawn
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)})
