"""What part a module of torch.nn is: its function, and how far it can carry two inputs apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.parts import Block, Conv, Linear, Monotone, Normed, Part
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.models.networks.resnext import SmoothReLU
from verigrad.models.ode_block import ODEBlock

# Activations that never fall and have slopes of at most 1; ELU and LeakyReLU where their slopes allow it.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.ELU, nn.Softplus, nn.Tanh, nn.Sigmoid, SmoothReLU)
# Linear maps without negative entries: choices, copies and means of entries.
MOVES = (nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Identity, nn.Dropout, nn.Dropout2d)


class Place(NamedTuple):
    """Where a part stands: its name, the place of its input, and the shapes of input and output without the batch."""

    name: str
    source: int
    given: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def base(self) -> dict[str, Any]:
        return {"name": self.name, "inputs": (self.source,), "shape": self.shape}


def module_part(module: nn.Module, place: Place) -> Part | None:
    """The part that a module is, in eval mode and its own dtype; None for one of which nothing is known."""
    if module._forward_hooks or module._forward_pre_hooks:
        return None  # they may change what it computes
    if isinstance(module, nn.Linear):
        return _linear(module, place)
    if isinstance(module, nn.Conv2d):
        return _conv(module, place)
    if isinstance(module, AntisymmetricConv2d):
        return _antisymmetric(module, place)
    if isinstance(module, ACTIVATIONS):
        return Monotone(function=module, l2=1.0, linf=1.0, **place.base) if _gentle(module) else None
    if isinstance(module, MOVES):
        return move(module, place, next(module.buffers(), torch.ones(())))
    if isinstance(module, nn.MaxPool2d):
        return None if module.return_indices else _max_pool(module, place)
    if isinstance(module, nn.GroupNorm):
        return Normed(module=module, **place.base)
    if isinstance(module, ODEBlock):
        return Block(module=module, given=place.given, **place.base)
    return None


def move(function: Callable[[Tensor], Tensor], place: Place, like: Tensor) -> Monotone | None:
    """A linear map without negative entries. None if it mixes the images of a batch.

    ‖P‖₂² is at most the largest row sum times the largest column sum (Schur's test), sharp where windows do not
    overlap; ‖P‖∞ is the largest row sum.
    """
    with torch.enable_grad():
        ones = torch.ones(2, *place.given, dtype=torch.float64, device=like.device).requires_grad_()
        rows = function(ones)
        if tuple(rows.shape) != (2, *place.shape):
            return None
        (columns,) = torch.autograd.grad(rows[0].sum(), ones)
    if bool(columns[1].any()) or bool((columns < 0).any()):
        return None
    row = float(rows.detach().max())
    return Monotone(function=function, l2=math.sqrt(row * float(columns.max())), linf=row, **place.base)


def _gentle(module: nn.Module) -> bool:
    """Whether its slopes are in [0, 1]."""
    if isinstance(module, nn.ELU):
        return 0 <= module.alpha <= 1
    return not isinstance(module, nn.LeakyReLU) or 0 <= module.negative_slope <= 1


def _linear(module: nn.Linear, place: Place) -> Linear | None:
    if len(place.shape) != 1:
        return None
    bias = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
    return Linear(weight=module.weight, bias=bias, **place.base)


def _conv(module: nn.Conv2d, place: Place) -> Conv | None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    return Conv(
        weight=module.weight,
        bias=module.weight.new_zeros(module.out_channels) if module.bias is None else module.bias,
        stride=pair(module.stride),
        padding=pair(module.padding),
        dilation=pair(module.dilation),
        groups=module.groups,
        size=pair(place.given[1:]),
        **place.base,
    )


def _antisymmetric(module: AntisymmetricConv2d, place: Place) -> Conv:
    kernel = module.weight - module.weight.transpose(0, 1).flip(2, 3)
    middle = kernel.shape[-1] // 2
    kernel[:, :, middle, middle] -= module.gamma * torch.eye(len(kernel)).to(kernel)
    return Conv(
        weight=kernel,
        bias=kernel.new_zeros(len(kernel)),
        stride=(1, 1),
        padding=(middle, middle),
        dilation=(1, 1),
        groups=1,
        size=pair(place.given[1:]),
        **place.base,
    )


def _max_pool(module: nn.MaxPool2d, place: Place) -> Monotone:
    """Each output is one of the inputs, so ‖·‖₂ grows by at most the root of how many windows an input is in."""
    size, stride, dilation = pair(module.kernel_size), pair(module.stride), pair(module.dilation)
    windows = math.prod(k if d > 1 else -(-k // s) for k, s, d in zip(size, stride, dilation, strict=True))
    return Monotone(function=module, l2=math.sqrt(windows), linf=1.0, **place.base)


def pair(value: Any) -> tuple[int, int]:
    """Height and width from one number or two."""
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)
