"""Wrappers around a classifier that hide its gradient without making it more robust.

Their constants are buffers, so that a model with a mask has another `weights_hash` than the model without.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput


class ScaledLogits(nn.Module):
    """Logits times a constant. Predictions are the same; the cross-entropy of a large scale has no gradient in float32.

    Args:
        module: the classifier.
        scale: a positive number.
    """

    scale: Tensor

    def __init__(self, module: nn.Module, scale: float) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise BadInput(f"The 'scale' of ScaledLogits must be a positive number. Got {scale!r}.")
        self.module = module
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) * self.scale


class QuantisedInput(nn.Module):
    """The classifier sees its input rounded to `levels` equal levels of [0, 1], which has no gradient.

    Args:
        module: the classifier.
        levels: from 2 up.
    """

    levels: Tensor

    def __init__(self, module: nn.Module, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise BadInput(f"The 'levels' of QuantisedInput must be at least 2. Got {levels!r}.")
        self.module = module
        self.register_buffer("levels", torch.tensor(float(levels)))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(torch.round(x * (self.levels - 1)) / (self.levels - 1))
