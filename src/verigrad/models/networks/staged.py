"""The frame that PolyNet, FractalNet and RevNet share here, so that the networks differ in their scheme alone.

    conv 3×3 (in → w) → stage w → halve → stage 2w → halve → stage 4w → norm, ReLU → mean over the image → linear

Halving is norm → ReLU → conv 3×3 of stride 2, which doubles the channels. The papers behind the three networks each
have a frame of their own (Inception, max-pooling, shortcuts by average pooling); none of them is followed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts

Norm = Literal["group", "batch", "none"]
STAGES = 3
SMALLEST = 4  # sides of an image: two halvings leave a pixel


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """GroupNorm with min(8, channels) groups, BatchNorm, or nothing.

    Raises:
        BadInput: for another word, or channels that 8 groups do not divide.
    """
    if norm == "group":
        if channels % min(8, channels):
            raise BadInput(
                f"The channels under norm='group' must be below 8 or a multiple of 8 (8 groups). Got {channels}; "
                "choose other 'channels', or norm='batch'."
            )
        return nn.GroupNorm(min(8, channels), channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise BadInput(f"The 'norm' must be 'group', 'batch' or 'none'. Got {norm!r}.")


def conv(in_channels: int, out_channels: int, norm: Norm, stride: int = 1) -> nn.Conv2d:
    """3×3, padding 1, with a bias only where no norm has one; drawn as in He et al. 2015, biases at zero.

    PyTorch's own draw is √6 times smaller, and a FractalNet without norms then does not begin to learn.
    """
    layer = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=norm == "none")
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def residual_function(channels: int, norm: Norm) -> nn.Sequential:
    """F: norm → ReLU → conv 3×3 → norm → ReLU → conv 3×3, the branch of a pre-activation block of He et al. 2016."""
    return nn.Sequential(
        normalisation(norm, channels),
        nn.ReLU(),
        conv(channels, channels, norm),
        normalisation(norm, channels),
        nn.ReLU(),
        conv(channels, channels, norm),
    )


def checked_step(name: str, h: float) -> float:
    """h as a float, in (0, inf).

    Raises:
        BadInput: for anything else.
    """
    if isinstance(h, bool) or not isinstance(h, int | float) or not (math.isfinite(h) and h > 0):
        raise BadInput(f"The 'h' of {name} must be a step size in (0, inf). Got {h!r}. The paper's is 1.")
    return float(h)


class _Stem(nn.Module):
    """The first convolution, which sees whether the images are large enough for what follows."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < SMALLEST:
            height, width = x.shape[-2:]
            raise BadInput(
                f"Images are halved twice, so their sides must be at least {SMALLEST}. Got {height}×{width}."
            )
        return self.conv(x)


def staged(
    name: str,
    stage: Callable[[int, int], nn.Module],
    *,
    channels: int,
    blocks: tuple[int, ...],
    classes: int,
    in_channels: int,
    norm: Norm,
) -> nn.Sequential:
    """The whole network around three stages.

    Args:
        name: of the network, for complaints.
        stage: (channels, blocks) -> a part that keeps the shape (B, channels, H, W).
        channels: w, at least 1.
        blocks: of each stage, at least 1.
        classes, in_channels: K and the channels of the images.
        norm: of the halvings and of the end.

    Raises:
        BadInput: for numbers out of range.
    """
    check_counts(name, channels=channels, classes=classes, in_channels=in_channels)
    if len(blocks) != STAGES or min(blocks) < 1:
        raise BadInput(f"The 'blocks' of {name} must be three numbers of at least 1. Got {tuple(blocks)}.")
    parts: list[nn.Module] = [_Stem(in_channels, channels, norm)]
    for i, count in enumerate(blocks):
        wide = channels * 2**i
        if i:
            parts += [normalisation(norm, wide // 2), nn.ReLU(), conv(wide // 2, wide, norm, stride=2)]
        parts.append(stage(wide, count))
    last = channels * 2 ** (STAGES - 1)
    parts += [normalisation(norm, last), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)]
    return nn.Sequential(*parts)
