"""The simple parts of which a classifier is made, and how a scale is folded into the linear map beside it.

Normalisation at the input and batch norm in evaluation are scales, x ↦ factor · x + shift channel by channel. A scale
between linear maps is multiplied into them, so that a bound on a radius is in pixels of [0, 1], and not in units of
the normalisation:

    conv(W) then scale(f, s)   =  conv(f W) with bias f b + s
    scale(f, s) then conv(W)   =  x + s / f, then conv(W f)          exact under zero padding, too
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
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


def applied(part: Linear | Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear part with another weight and bias."""
    if isinstance(part, Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, part.stride, part.padding, part.dilation, part.groups)


def evaluate(parts: Parts, image: Tensor) -> Tensor:
    """The logits (B, K) that the parts give, in float64."""
    values: list[Tensor] = []
    for part in parts:
        given = [values[i] for i in part.inputs]
        if isinstance(part, Linear | Conv):
            value = applied(part, given[0], part.weight, part.bias)
        elif isinstance(part, Scale):
            value = part.factor * given[0] + part.shift
        elif isinstance(part, Monotone):
            value = part.function(given[0])
        elif isinstance(part, Normed | Block):
            value = part.module(given[0])
        elif isinstance(part, Join):
            value = torch.cat(given, part.axis)
        else:
            value = torch.stack(given).sum(0) if given else image
        values.append(value)
    return values[-1]


# A scale whose factor nears 0 stays a part of its own: shift / factor would be large and cancel.
SMALLEST_FACTOR = 1e-4


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


def _by_channel(value: Tensor, part: Part) -> Tensor | None:
    """(channels,) where the value is one number for all, or for each entry of the first axis after the batch."""
    channels = part.shape[0]
    if value.numel() == 1:
        return value.reshape(1).expand(channels)
    aligned = [1] * (len(part.shape) + 1 - value.dim()) + list(value.shape)
    if len(aligned) == len(part.shape) + 1 and aligned[1] == channels == value.numel():
        return value.reshape(channels)
    return None
