"""ResNeXt-34 (2×32), the CIFAR-10 network of Finlay & Oberman 2021 (MLWA), section 5.

The paper gives the name alone. The layout is that of its released code (github.com/cfinlay/tulip, cifar10/models), and
is not the ResNeXt of Xie et al. 2017: see `ResNeXt34`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts
from verigrad.models.networks.residual import ResidualNet, conv

Activation = Literal["relu", "smooth"]
Head = Literal["released", "linear"]

BLOCKS = 5  # in each of three stages: 1 + 3 · 5 · 2 + 2 + 1 = 34 layers


class SmoothReLU(nn.Module):
    """ReLU with two continuous derivatives: z³ - z⁴/2 with z = x + 1/2 for |x| < 1/2, else max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        z = x.clamp(-0.5, 0.5) + 0.5
        return torch.where(x.abs() < 0.5, z.pow(3) * (1 - z / 2), x.relu())


def activated(activation: Activation) -> nn.Module:
    return nn.ReLU() if activation == "relu" else SmoothReLU()


class Shift(nn.Module):
    """A bias for each channel of (B, channels, …), drawn from ±1/√fan_in."""

    def __init__(self, channels: int, fan_in: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(channels))
        nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.reshape(-1, *[1] * (x.dim() - 2))


class Halving(nn.Module):
    """The mean over pixels of 2×2; an odd row or column at the end is left out."""

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < 2:
            raise BadInput("ResNeXt34 halves its images twice: their sides must be at least 4. Use larger images.")
        return F.avg_pool2d(x, 2)


class BranchBlock(nn.Module):
    """σ(x + mean over branches of bn(conv 3×3(σ(bn(conv 3×3(x)))))).

    Each branch has weights of its own and as many channels as x: the first convolution gives branches · C channels, the
    second keeps them, in as many groups as there are branches.
    """

    def __init__(self, channels: int, branches: int, activation: Activation) -> None:
        super().__init__()
        wide = branches * channels
        self.branches = branches
        self.layers = nn.Sequential(
            conv(channels, wide, 3),
            nn.BatchNorm2d(wide),
            activated(activation),
            nn.Conv2d(wide, wide, 3, padding=1, groups=branches, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.activated = activated(activation)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.layers(x).unflatten(1, (self.branches, x.shape[1]))
        return self.activated(x + branches.mean(1))


def shifted(in_channels: int, channels: int, size: int, activation: Activation) -> nn.Sequential:
    """σ(n(conv(x)) + b), where n is batch norm without weights."""
    norm = nn.BatchNorm2d(channels, affine=False)
    shift = Shift(channels, in_channels * size**2)
    return nn.Sequential(conv(in_channels, channels, size), norm, shift, activated(activation))


class ResNeXt34(ResidualNet):
    """34 layers: a 3×3 stem, three stages of five blocks of two branches with C, 2C, 4C channels, and a linear layer.

    Between stages a 1×1 convolution doubles the channels and a 2×2 mean halves the image. 3,892,298 parameters, which
    are the 3.9 million of the released network. Weights start as there: uniform in ±1/√fan-in, as torch's do.

    What is not a ResNeXt's: a block has no 1×1 convolutions and takes the mean over its branches, each as wide as the
    block; stem, transitions and last layer have a batch norm without weights and a bias after it.

    The released network also puts that norm, the bias and the activation after its last linear layer. So no logit is
    below 0, a logit at 0 passes no gradient, and in training, where each logit has unit variance over the batch before
    it is clipped, the cross-entropy cannot come near 0. head="linear" is a plain linear layer.

    Args:
        channels: C, 32 in the paper.
        branches: 2 in the paper.
        classes: K.
        in_channels: channels of the images, whose sides are 4 pixels or more.
        activation: "relu", or "smooth", the released code's `SmoothReLU`.
        head: "released" or "linear".
    """

    def __init__(
        self,
        channels: int = 32,
        branches: int = 2,
        classes: int = 10,
        in_channels: int = 3,
        *,
        activation: Activation = "relu",
        head: Head = "released",
    ) -> None:
        check_counts("ResNeXt34", channels=channels, branches=branches, classes=classes, in_channels=in_channels)
        if activation not in ("relu", "smooth"):
            raise BadInput(f"The 'activation' of ResNeXt34 must be 'relu' or 'smooth'. Got {activation!r}.")
        if head not in ("released", "linear"):
            raise BadInput(f"The 'head' of ResNeXt34 must be 'released' or 'linear'. Got {head!r}.")
        trunk: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            wider = [] if stage == 0 else [*shifted(width // 2, width, 1, activation), Halving()]
            trunk.append(nn.Sequential(*wider, *(BranchBlock(width, branches, activation) for _ in range(BLOCKS))))
        last = nn.Linear(4 * channels, classes, bias=head == "linear")
        if head == "released":
            norm, shift = nn.BatchNorm1d(classes, affine=False), Shift(classes, 4 * channels)
            last = nn.Sequential(last, norm, shift, activated(activation))
        super().__init__(shifted(in_channels, channels, 3, activation), nn.Sequential(*trunk), last)
