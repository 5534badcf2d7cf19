"""How far each part can carry two inputs apart: bounds on its Lipschitz constant under L2 and Linf."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from verigrad.certificates.parts import Conv, Join, Linear, Monotone, Normed, Part, Scale, Source, Sum
from verigrad.core.errors import BadInput
from verigrad.core.operator_norm import conv_norm, largest_singular

NORMS = ("l2", "linf")


@torch.no_grad()
def matrix_gain(weight: Tensor, norm: str) -> float:
    """‖W‖₂, or ‖W‖∞: the largest sum of a row's absolute values. (out, in)"""
    if norm == "linf":
        return float(weight.abs().sum(1).max())
    return largest_singular(weight)


@torch.no_grad()
def conv_gain(
    weight: Tensor,
    size: tuple[int, int],
    norm: str,
    *,
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> float:
    """A bound on the norm of a convolution with zero padding (any) on images of `size`.

    Under Linf the sum of a kernel's absolute values, under L2 the norm of its circular form (`core/operator_norm.py`).

    Args:
        weight: (out, in / groups, k, k).
    """
    if norm == "linf":
        return float(weight.abs().flatten(1).sum(1).max())
    return conv_norm(weight, size, stride=stride, dilation=dilation, groups=groups)


@torch.no_grad()
def part_gain(part: Part, reaches: list[float], norm: str) -> float:
    """The Lipschitz constant of a part's value as a function of the image, given those of its inputs.

    Args:
        reaches: the constants of its inputs.

    Raises:
        BadInput: for a part that has none under this norm.
    """
    if isinstance(part, Source):
        return 1.0
    if isinstance(part, Sum):
        return sum(reaches)
    if isinstance(part, Join):
        return max(reaches) if norm == "linf" else math.hypot(*reaches)
    return reaches[0] * _own_gain(part, norm)


def _own_gain(part: Part, norm: str) -> float:
    if isinstance(part, Linear):
        return matrix_gain(part.weight, norm)
    if isinstance(part, Conv):
        return conv_gain(part.weight, part.size, norm, stride=part.stride, dilation=part.dilation, groups=part.groups)
    if isinstance(part, Scale):
        return float(part.factor.abs().max())
    if isinstance(part, Monotone):
        return part.linf if norm == "linf" else part.l2
    if isinstance(part, Normed) and norm == "l2":
        return group_norm_gain(part.module)
    raise BadInput(f"No {norm} bound is known for {part.name}.")


@torch.no_grad()
def group_norm_gain(module: torch.nn.Module) -> float:
    """max |weight| / √eps: the Jacobian of a group norm is weight/√(var + eps) times a contraction.

    It is reached only at a variance of 0, and about 316 for the default eps; no better one holds everywhere.
    """
    if not isinstance(module, torch.nn.GroupNorm):
        return 1.0  # the identity that stands for no norm
    weight = 1.0 if module.weight is None else float(module.weight.abs().max())
    return weight / math.sqrt(module.eps)
