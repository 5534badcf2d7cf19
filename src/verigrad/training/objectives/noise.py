"""Gaussian data augmentation (Cohen, Rosenfeld & Kolter 2019, section 3.3): cross-entropy on noisy images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.training.objectives.base import Loss, accuracy, check_smoothing


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """mean_i cross-entropy at x_i + sigma · n_i, with n_i standard normal from the sample's own stream.

    One draw for each image and step, as in the paper. Parts: "cross_entropy" and "accuracy", both on the noisy images.
    Passes: 1 forward, 1 backward.

    Args:
        sigma: standard deviation in pixel units of [0, 1], before any normalisation inside the model; from 0 up.
        clamp: whether noisy images are cut to [0, 1]. The paper's are not, and a smoothing certificate at this sigma
            shows the classifier uncut noise, so it is false by default.
        smoothing: of the labels, as in `natural.py`.
    """

    sigma: float
    clamp: bool = False
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise BadInput(
                f"The 'sigma' of GaussianNoise must be a finite number in [0, inf), in pixel units of [0, 1]. "
                f"Got {self.sigma!r}. Did you mean 0.25?"
            )
        check_smoothing(type(self).__name__, self.smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss:
        noisy = x + self.sigma * generator.normal(*x.shape[1:], dtype=x.dtype)
        logits = model(noisy.clamp(0, 1) if self.clamp else noisy)
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": accuracy(logits, y)})
