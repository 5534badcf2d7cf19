"""Cross-entropy on the images as they are, with smoothed labels if so told."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.seeds import SampleGenerator
from verigrad.training.objectives.base import Loss, accuracy, check_smoothing


@dataclass(frozen=True, kw_only=True)
class Natural:
    """mean_i ( -Σ_k q_ik log p_ik ) with q_ik = (1 - smoothing) [k = y_i] + smoothing / K.

    Without smoothing that is log Σ_j exp z_ij - z_iy. Parts: "cross_entropy" (of q, what is trained) and "accuracy".
    Passes: 1 forward, 1 backward.

    Args:
        smoothing: the share of the label that is spread over all K classes, the right one too, in [0, 1) (Szegedy et
            al. 2016, section 7, where it is 0.1).
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_smoothing(type(self).__name__, self.smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        del generator  # nothing is drawn
        logits = model(x)
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)})
