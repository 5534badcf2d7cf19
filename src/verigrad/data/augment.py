"""Crop, flip and cutout on whole batches; each sample's choices come from its own stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of training images, in this order: crop, flip, cutout. By default none.

    Args:
        crop: the image is moved by up to so many pixels in each direction, from 0 up (He et al. 2015, section 4.2: 4
            for CIFAR-10).
        flip: whether it is mirrored, left and right, with probability 1/2 (there too).
        cutout: side of a square that is painted over, from 0 up (DeVries & Taylor 2017: 16 for CIFAR-10). Its centre
            is any pixel, so that part of it may lie outside.
        fill: value of the pixels that a crop or a cutout leaves open, in [0, 1]. Both papers work on images that are
            normalised already, where 0 is about the mean; here they are not yet, and 0 is black.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.crop < 0 or self.cutout < 0:
            raise BadInput(f"'crop' and 'cutout' must not be negative. Got {self.crop} and {self.cutout}.")
        if not 0 <= self.fill <= 1:
            raise BadInput(f"The 'fill' of Augment must be in [0, 1]. Got {self.fill}.")

    def __call__(self, x: Tensor, *, generator: SampleGenerator) -> Tensor:
        """Changed images of the same shape and type.

        Args:
            x: (B, C, H, W), uint8 from 0 to 255 or floating point in [0, 1].
            generator: B streams.
        """
        fill = self.fill if x.is_floating_point() else round(255 * self.fill)
        if self.crop:
            x = _moved(x, self.crop, fill, generator)
        if self.flip:
            x = torch.where(generator.signs(1, 1, 1) > 0, x.flip(3), x)
        if self.cutout:
            x = x.masked_fill(_square(x, self.cutout, generator), fill)
        return x


def _moved(x: Tensor, most: int, fill: float, generator: SampleGenerator) -> Tensor:
    height, width = x.shape[2:]
    start = generator.integers(2, high=2 * most + 1)
    rows = start[:, :1] + torch.arange(height, device=x.device)
    columns = start[:, 1:] + torch.arange(width, device=x.device)
    padded = F.pad(x, (most, most, most, most), value=fill)
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    # The index beside the slice puts channels last.
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _square(x: Tensor, side: int, generator: SampleGenerator) -> Tensor:
    """(B, 1, H, W): where a square of this side lies."""
    inside = []
    for length in x.shape[2:]:
        first = generator.integers(1, high=length) - side // 2
        place = torch.arange(length, device=x.device)
        inside.append((place >= first) & (place < first + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
