"""Wide residual networks (Zagoruyko & Komodakis 2016, 1605.07146)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts
from verigrad.models.networks.preact_resnet import PreActBlock
from verigrad.models.networks.residual import ResidualNet, conv, he_fan_out, stages

Variant = Literal["released", "standard"]

STEM_WIDTH = 16


class BiasedWideBlock(nn.Module):
    """The block of the released SONet code: a + conv 3×3(relu(bn(conv 3×3(relu(bn(x))))), stride), all with bias.

    It differs from `PreActBlock` in three ways: the stride is in the second convolution, convolutions have a bias, and
    where the shape changes, a is a 1×1 convolution of x itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            conv(in_channels, channels, 3, bias=True),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv(channels, channels, 3, stride, bias=True),
        )
        same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if same else conv(in_channels, channels, 1, stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)


def wide_stages(depth: int, widen: int, variant: Variant) -> nn.Sequential:
    """Three stages of (depth - 4) / 6 blocks, 16, 32 and 64 times `widen` channels, strides 1, 2, 2; then bn and ReLU.

    The last batch norm of the released code has momentum 0.9: its running statistics are nearly the last batch's.

    Raises:
        BadInput: depth is not 10, 16, 22, …, widen is below 1, or the variant is unknown.
    """
    if depth < 10 or (depth - 4) % 6:
        raise BadInput(f"The 'depth' of a wide ResNet must be 6n + 4 with n from 1 up, e.g. 28 or 34. Got {depth!r}.")
    if variant not in ("released", "standard"):
        raise BadInput(f"The 'variant' of a wide ResNet must be 'released' or 'standard'. Got {variant!r}.")
    check_counts("a wide ResNet", widen=widen)
    widths = (16 * widen, 32 * widen, 64 * widen)
    block = PreActBlock if variant == "standard" else BiasedWideBlock
    trunk = stages(block, ((depth - 4) // 6,) * 3, widths, (1, 2, 2), STEM_WIDTH)
    return trunk.extend([nn.BatchNorm2d(widths[-1], momentum=0.1 if variant == "standard" else 0.9), nn.ReLU()])


def wide_start(model: nn.Module) -> None:
    """`he_fan_out`, and linear layers without a bias at first: what the TRADES and the SONet code do."""
    he_fan_out(model)
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


class WideResNet(ResidualNet):
    """WRN-34-10 and its kin: a 3×3 stem of 16 channels, `wide_stages`, average pooling, linear. No dropout.

    "standard" is the network of Zagoruyko & Komodakis as the TRADES code (Zhang et al. 2019) has it: 46,160,474
    parameters, its never used second copy of the first stage not counted. "released" is that of the SONet code (Huang
    et al. 2020): 46,172,810. Images of any size; both codes pool 8×8 pixels, which is all there are of 32×32 images.

    Args:
        depth: 6n + 4.
        widen: how many times wider than 16, 32, 64 channels.
        classes: K.
        in_channels: channels of the images.
        variant: "standard" or "released".
    """

    def __init__(
        self,
        depth: int = 34,
        widen: int = 10,
        classes: int = 10,
        in_channels: int = 3,
        *,
        variant: Variant = "standard",
    ) -> None:
        check_counts("WideResNet", classes=classes, in_channels=in_channels)
        trunk = wide_stages(depth, widen, variant)
        stem = conv(in_channels, STEM_WIDTH, 3, bias=variant == "released")
        super().__init__(stem, trunk, nn.Linear(64 * widen, classes))
        wide_start(self)
