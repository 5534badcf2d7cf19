"""A convolution that is antisymmetric as an operator on images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts


class AntisymmetricConv2d(nn.Module):
    """x ↦ (A - Aᵀ) x - γ x, where A is the convolution with `weight`, on images (B, channels, H, W) of any size.

    The form θ - θᵀ - γI of the optimal-control paper, section 4.2. Stride 1, an odd kernel and zero padding make A a
    square matrix on the pixels of all channels, whose transpose is again such a convolution: with the kernel that has
    its two channel axes swapped and its two pixel axes reversed. So every eigenvalue of the operator has the real part
    -γ; swapping the channels alone would not give that. No bias.

    `weight` has more numbers than the operator has degrees of freedom: about half of them count. Drawn independently,
    they give a kernel of twice their variance.

    Args:
        channels: in and out.
        size: of the kernel, odd.
        gamma: γ, a finite number from 0 up. It is a buffer, so that models with another γ have another `weights_hash`.
    """

    gamma: Tensor

    def __init__(self, channels: int, size: int = 3, *, gamma: float = 0.0) -> None:
        check_counts("AntisymmetricConv2d", channels=channels)
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise BadInput(f"The 'size' of AntisymmetricConv2d must be odd and positive. Got {size!r}.")
        if not (math.isfinite(gamma) and gamma >= 0):
            raise BadInput(f"The 'gamma' of an antisymmetric convolution must be a number in [0, inf). Got {gamma!r}.")
        self.weight = nn.Parameter(torch.empty(channels, channels, size, size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.register_buffer("gamma", torch.tensor(float(gamma)))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight - self.weight.transpose(0, 1).flip(2, 3)
        return F.conv2d(x, kernel, padding=kernel.shape[-1] // 2) - self.gamma * x
