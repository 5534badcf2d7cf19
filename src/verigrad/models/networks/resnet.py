"""Residual networks with the ReLU after the sum (He et al. 2015, 1512.03385), of 10, 18 and 50 layers."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts
from verigrad.models.networks.residual import (
    BasicBlock,
    Bottleneck,
    ResidualNet,
    conv,
    four_stages,
    he_fan_out,
    normed,
)

Stem = Literal["cifar", "imagenet"]


class ResNet10(ResidualNet):
    """The baseline of the SONet paper (Huang et al. 2020), as in its released code.

    conv 3×3, batch norm, ReLU; one basic block in each of four stages of C, 2C, 4C, 8C channels with strides 1, 2, 2,
    2; average pooling; linear. Weights start as torch starts them (uniform in ±1/√fan-in), since the code says nothing.
    4,903,242 parameters, or 1,228,970 at 32 channels. Images of any size.

    Args:
        channels: C; 32 and 64 in the paper.
        classes: K.
        in_channels: channels of the images.
    """

    def __init__(self, channels: int = 64, classes: int = 10, in_channels: int = 3) -> None:
        check_counts("ResNet10", channels=channels, classes=classes, in_channels=in_channels)
        super().__init__(
            nn.Sequential(*normed(conv(in_channels, channels, 3), channels), nn.ReLU()),
            four_stages(BasicBlock, (1, 1, 1, 1), channels),
            nn.Linear(8 * channels, classes),
        )


class ResNet18(ResidualNet):
    """18 layers, 8 basic blocks: the network of the optimal-control paper (its section 5.1) on CIFAR-10.

    The paper names the depth and the number of blocks. The stem (3×3, stride 1, as CIFAR versions have it), the widths
    from 64 to 512 and the start of the weights (`he_fan_out`) are our choice. 11,173,962 parameters. Images of any
    size.

    `antisymmetric` is the paper's section 4.2: θ - θᵀ - γI in place of θ, so that Re λ = -γ ≤ 0 as its Theorem 1 asks.
    The paper says neither for which layers of a network (θ must be square) nor γ beyond "small", and reports no run of
    it. Here it holds for each 3×3 convolution of the blocks with stride 1 and as many channels out as in: 13 of 16,
    each antisymmetric as an operator on images (`antisymmetric.py`). Free stay the stem, the first convolutions of
    stages two to four, the three 1×1 shortcuts and the last linear layer: none of them is square.

    What it does not give: batch norm follows each convolution and in evaluation scales its channels, which is sure to
    keep Re λ ≤ 0 only if all scales are positive; and a residual step of size 1 along λ = -γ + iω grows by
    √((1 - γ)² + ω²), more than 1 for all ω² > 2γ - γ². Theorem 1 is then met and Theorem 2, on the discrete network,
    is not.

    Args:
        channels: C of the first stage.
        classes: K.
        in_channels: channels of the images.
        antisymmetric: as above.
        gamma: γ, a number from 0 up; read only with `antisymmetric`. 0.01 is our choice.
    """

    def __init__(
        self,
        channels: int = 64,
        classes: int = 10,
        in_channels: int = 3,
        *,
        antisymmetric: bool = False,
        gamma: float = 0.01,
    ) -> None:
        check_counts("ResNet18", channels=channels, classes=classes, in_channels=in_channels)
        super().__init__(
            nn.Sequential(*normed(conv(in_channels, channels, 3), channels), nn.ReLU()),
            four_stages(partial(BasicBlock, gamma=gamma if antisymmetric else None), (2, 2, 2, 2), channels),
            nn.Linear(8 * channels, classes),
        )
        he_fan_out(self)


class ResNet50(ResidualNet):
    """50 layers in bottleneck blocks (3, 4, 6, 3), the stride in the 3×3 convolution.

    With the "cifar" stem (3×3, stride 1) it stands for the ResNet50 of the natural-robustness paper (Chu et al. 2020,
    Table 1) on MNIST and CIFAR-10, which that paper does not describe further: 23,520,842 parameters, 23,519,690 for
    grey images. With the "imagenet" stem (7×7, stride 2, then max pooling 3×3, stride 2) it is the network of the
    ImageNet rows of Finlay & Oberman 2021: 25,557,032 parameters for 1,000 classes. Weights start by `he_fan_out`, and
    each block's last batch norm at 1. Images of any size.

    Args:
        stem: "cifar" or "imagenet".
        classes: K.
        in_channels: channels of the images.
        channels: C, the inner channels of the first stage.
    """

    def __init__(self, stem: Stem = "cifar", classes: int = 10, in_channels: int = 3, channels: int = 64) -> None:
        check_counts("ResNet50", classes=classes, in_channels=in_channels, channels=channels)
        if stem not in ("cifar", "imagenet"):
            raise BadInput(f"The 'stem' of ResNet50 must be 'cifar' or 'imagenet'. Got {stem!r}.")
        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        first = [*normed(conv(in_channels, channels, size, stride), channels), nn.ReLU()]
        if stem == "imagenet":
            first.append(nn.MaxPool2d(3, stride=2, padding=1))
        super().__init__(
            nn.Sequential(*first),
            four_stages(Bottleneck, (3, 4, 6, 3), channels, Bottleneck.EXPANSION),
            nn.Linear(8 * Bottleneck.EXPANSION * channels, classes),
        )
        he_fan_out(self)
