"""A classifier as a list of simple parts in float64, with scales folded into the linear maps beside them.

Normalisation at the input and batch norm in evaluation are scales, x ↦ factor · x + shift channel by channel. A scale
between linear maps is multiplied into them, so that a bound on a radius is in pixels of [0, 1], and not in units of
the normalisation:

    conv(W) then scale(f, s)   =  conv(f W) with bias f b + s
    scale(f, s) then conv(W)   =  x + s / f, then conv(W f)          exact under zero padding, too
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from verigrad.models.ode_block import ODEBlock


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """One step. `inputs` are places in the list of parts; `shape` is that of the output without the batch."""

    name: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source(Part):
    """The image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Part):
    """x Wᵀ + b on the last of two axes."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Part):
    """A convolution with zero padding; `size` is the height and width that it sees."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Part):
    """factor · x + shift, both of a shape that is spread over x."""

    factor: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Monotone(Part):
    """A map that is nondecreasing in each entry: an activation, a pooling, a choice of entries.

    l2, linf: its Lipschitz constants.
    """

    function: Callable[[Tensor], Tensor]
    l2: float
    linf: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Sum(Part):
    """The sum of the inputs, entry by entry or spread."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Join(Part):
    """The inputs side by side along an axis of the batch."""

    axis: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Normed(Part):
    """Group norm: each group less its mean, over √(its variance + eps); times weight, plus bias."""

    module: nn.GroupNorm


@dataclass(frozen=True, kw_only=True, eq=False)
class Block(Part):
    """An ODE block; `given` is the shape of its input without the batch."""

    module: ODEBlock
    given: tuple[int, ...]


Parts = tuple[Part, ...]
# A scale whose factor nears 0 stays a part of its own: shift / factor would be large and cancel.
SMALLEST_FACTOR = 1e-4


def exact(model: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode."""
    return copy.deepcopy(model).double().eval()


def after(before: Linear | Conv, factor: Tensor, shift: Tensor, name: str) -> Linear | Conv | None:
    """The linear map followed by a scale; None where the scale is not one number for each output channel."""
    f, s = _by_channel(factor, before), _by_channel(shift, before)
    if f is None or s is None:
        return None
    weight = before.weight * f.reshape(-1, *[1] * (before.weight.dim() - 1))
    return replace(before, weight=weight, bias=before.bias * f + s, name=f"{before.name}+{name}")


def ahead(scale: Scale, weight: Tensor, groups: int) -> tuple[Scale, Tensor] | None:
    """A scale followed by a linear map: the shift that stays, and the weight that takes the factor."""
    f = _by_channel(scale.factor, scale)
    if f is None or bool((f.abs() < SMALLEST_FACTOR).any()) or scale.factor.dim() > len(scale.shape) + 1:
        return None
    # Group g of the output channels sees channels g·n to (g + 1)·n of the input.
    columns = f.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1).reshape(len(weight), -1)
    shift = scale.shift / scale.factor
    left = replace(scale, factor=torch.ones_like(shift), shift=shift)
    return left, weight * columns.reshape(*columns.shape, *[1] * (weight.dim() - 2))


def merged(first: Scale, factor: Tensor, shift: Tensor) -> Scale:
    """A scale followed by another one."""
    return replace(first, factor=factor * first.factor, shift=factor * first.shift + shift)


def _by_channel(value: Tensor, part: Part) -> Tensor | None:
    """(channels,) where the value is one number for all, or for each entry of the first axis after the batch."""
    channels = part.shape[0]
    if value.numel() == 1:
        return value.reshape(1).expand(channels)
    aligned = [1] * (len(part.shape) + 1 - value.dim()) + list(value.shape)
    if len(aligned) == len(part.shape) + 1 and aligned[1] == channels == value.numel():
        return value.reshape(channels)
    return None


def pooling_norm(pool: Callable[[Tensor], Tensor], height: int, width: int) -> float:
    """‖P‖₂ of an average pooling that is the same map along rows and along columns: ‖P_h‖₂ · ‖P_w‖₂.

    Args:
        pool: takes (1, C, H, W).
    """
    norms = []
    for rows in (True, False):
        size = height if rows else width
        lines = torch.eye(size, dtype=torch.float64)
        # A line along one axis, constant along the other, whose mean is the constant.
        images = lines[:, None, :, None].expand(-1, 1, size, width) if rows else None
        images = images if images is not None else lines[:, None, None, :].expand(-1, 1, height, size)
        out = pool(images)
        norms.append(float(torch.linalg.matrix_norm(out[:, 0, :, 0] if rows else out[:, 0, 0, :], 2)))
    return math.prod(norms)
