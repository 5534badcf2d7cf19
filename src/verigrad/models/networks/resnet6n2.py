"""The residual networks of He et al. 2015 (1512.03385) for CIFAR, 6n + 2 layers deep, with a step size."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts
from verigrad.models.networks.residual import (
    Residual,
    ResidualNet,
    basic_branch,
    conv,
    he_fan_out,
    normed,
    projection,
    stages,
)

Shortcut = Literal["A", "B"]


class Scaled(nn.Module):
    """y ↦ h · y. h is a buffer, so that models with another step have another `weights_hash`."""

    h: Tensor

    def __init__(self, h: float) -> None:
        super().__init__()
        self.register_buffer("h", torch.tensor(float(h)))

    def forward(self, y: Tensor) -> Tensor:
        return self.h * y


class PaddedShortcut(nn.Module):
    """Option A of He et al.: every stride-th pixel, and zeros for the channels that are new (the last ones)."""

    def __init__(self, more_channels: int, stride: int) -> None:
        super().__init__()
        self.more_channels = more_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more_channels))


class ResNet6n2(ResidualNet):
    """Three stages of n basic blocks each, with the step y ↦ relu(shortcut(y) + h · F(y)).

    A 3×3 stem with batch norm and ReLU; 16, 32 and 64 channels with strides 1, 2, 2; average pooling; linear: section
    4.2 of He et al. 2015. Weights start by `he_fan_out`. Images of any size.

    h is that of the natural-robustness paper (Chu et al. 2020), Eq. (2) and section 4.1. The paper leaves open where h
    stands (its section 3.1 multiplies "outputs of convolution layers"), whether ReLU follows the sum, and what happens
    where the shape changes. Here h multiplies F after its last batch norm, since before a batch norm it would cancel
    or, when tiny, vanish below the norm's ε; ReLU follows the sum and the shortcut is never scaled, as in the network
    that it takes over. The scale of F's last batch norm can learn to undo a moderate h. Under h = 1e-10 and option A
    hardly more than the stem reaches the logits.

    Args:
        blocks: n.
        h: the step size, a number above 0.
        classes: K.
        in_channels: channels of the images.
        channels: of the stem and the first stage; 16 in the paper.
        shortcut: "A" (zeros for new channels, no weights; He et al. on CIFAR) or "B" (1×1 convolution and batch norm).
    """

    def __init__(
        self,
        blocks: int,
        h: float = 1.0,
        classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        shortcut: Shortcut = "A",
    ) -> None:
        name = f"ResNet{6 * blocks + 2}"
        check_counts(name, blocks=blocks, classes=classes, in_channels=in_channels, channels=channels)
        if not (math.isfinite(h) and h > 0):
            raise BadInput(f"The 'h' of {name} must be a finite number above 0. Got {h!r}.")
        if shortcut not in ("A", "B"):
            raise BadInput(f"The 'shortcut' of {name} must be 'A' or 'B'. Got {shortcut!r}.")

        def block(before: int, width: int, stride: int) -> Residual:
            branch = nn.Sequential(basic_branch(before, width, stride), Scaled(h))
            if shortcut == "B" or (before == width and stride == 1):
                return Residual(branch, projection(before, width, stride))
            return Residual(branch, PaddedShortcut(width - before, stride))

        super().__init__(
            nn.Sequential(*normed(conv(in_channels, channels, 3), channels), nn.ReLU()),
            stages(block, (blocks,) * 3, (channels, 2 * channels, 4 * channels), (1, 2, 2), channels),
            nn.Linear(4 * channels, classes),
        )
        he_fan_out(self)


class ResNet56(ResNet6n2):
    """n = 9, the network that Chu et al. 2020, section 4.1, train for h = 1, 0.1, …, 1e-10. 853,018 parameters, or
    855,770 with shortcut "B". Arguments as in `ResNet6n2`.
    """

    def __init__(
        self,
        h: float = 1.0,
        classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__(9, h, classes, in_channels, channels, shortcut)


class ResNet8(ResNet6n2):
    """n = 1: stands for the network with three residual blocks on which Chu et al. 2020, section 4.1, make their FGSM
    examples, and which they do not describe further. 75,290 parameters. Arguments as in `ResNet6n2`.
    """

    def __init__(
        self,
        h: float = 1.0,
        classes: int = 10,
        in_channels: int = 3,
        channels: int = 16,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__(1, h, classes, in_channels, channels, shortcut)
