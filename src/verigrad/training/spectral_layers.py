"""A layer with a norm that can be bounded: its kernel, with batch norm folded in, and how a new one is put back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verigrad.core.errors import BadInput
from verigrad.core.operator_norm import Pair
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.training.spectral_kernels import Geometry

# Below this gain a folded kernel is not divided by it.
SMALLEST_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class Layer:
    """x ↦ θx + b: a linear layer, a convolution with zero padding, or an antisymmetric one; with the batch norm that
    takes its output, if one does: then θ is the weight times diag(w / √(v + ε)), v the running variance.

    size: the largest images that it meets. shifted: whether it stands beside a skip, so that x + θx counts.
    """

    name: str
    module: nn.Linear | nn.Conv2d | AntisymmetricConv2d
    size: Pair
    norm: _BatchNorm | None
    shifted: bool

    @property
    def limit(self) -> float:
        """The bound on the norm of `kernel`: 1; for θ = S − γI with Sᵀ = −S, whose eigenvalues are −γ + iω, that on ω:
        ω² ≤ 1 − γ² gives ‖θ‖ ≤ 1, and ω² ≤ 2γ − γ² gives ‖I + θ‖ ≤ 1.
        """
        if not isinstance(self.module, AntisymmetricConv2d) or self.norm is not None:
            return 1.0
        gamma = float(self.module.gamma)
        square = gamma * (2 - gamma) if self.shifted else 1 - gamma**2
        if square <= 0:
            wanted = "in (0, 2)" if self.shifted else "below 1"
            raise BadInput(f"The 'gamma' of the antisymmetric layer {self.name!r} must be {wanted}. Got {gamma:g}.")
        return math.sqrt(square)

    @property
    def groups(self) -> int:
        """1 but for a convolution in groups."""
        return self.module.groups if isinstance(self.module, nn.Conv2d) else 1

    @property
    def is_matrix(self) -> bool:
        """Whether its operator norm is that of its weight as a matrix: also for a kernel of one pixel."""
        return not isinstance(self.module, AntisymmetricConv2d) and math.prod(self.module.weight.shape[2:]) == 1

    @property
    def only_scales(self) -> bool:
        """Whether a kernel near `kernel` cannot be put in its place, and only a multiple of it can."""
        if self.norm is None:
            return False
        return isinstance(self.module, AntisymmetricConv2d) or float(self._gain().abs().min()) < SMALLEST_GAIN

    @property
    def geometry(self) -> Geometry:
        """Of a convolution."""
        module = self.module
        assert not isinstance(module, nn.Linear)
        if isinstance(module, AntisymmetricConv2d):
            middle = module.weight.shape[-1] // 2
            return Geometry(self.size, padding=(middle, middle))
        stride, padding, dilation = (_pair(value) for value in (module.stride, module.padding, module.dilation))
        return Geometry(self.size, stride, padding, dilation, self.groups)

    def kernel(self) -> Tensor:
        """What the constraint bounds: θ, or I + θ beside a skip; S of an antisymmetric layer without a batch norm."""
        weight = self.module.weight.detach()
        if isinstance(self.module, AntisymmetricConv2d):
            skew = weight - weight.transpose(0, 1).flip(2, 3)
            return skew if self.norm is None else (skew - self.module.gamma * _identity(weight)) * self._gain()
        theta = weight if self.norm is None else weight * self._gain()
        return theta + _identity(weight) if self.shifted else theta

    def put(self, kernel: Tensor) -> None:
        """Makes the weight such that `kernel()` is this one; of an antisymmetric layer by the least change."""
        weight = self.module.weight.detach()
        if isinstance(self.module, AntisymmetricConv2d):
            weight.add_((kernel - self.kernel()) / 2)
            return
        theta = kernel - _identity(weight) if self.shifted else kernel
        weight.copy_(theta if self.norm is None else theta / self._gain())

    def scale(self, factor: float) -> None:
        """Multiplies `kernel()`."""
        if isinstance(self.module, AntisymmetricConv2d) and self.norm is not None:
            self.norm.weight.detach().mul_(factor)
        elif self.shifted and not isinstance(self.module, AntisymmetricConv2d):
            weight = self.module.weight.detach()
            identity = _identity(weight) if self.norm is None else _identity(weight) / self._gain()
            weight.mul_(factor).add_(identity, alpha=factor - 1)
        else:
            self.module.weight.detach().mul_(factor)

    def _gain(self) -> Tensor:
        """Of the batch norm, in the shape in which it multiplies the weight."""
        assert self.norm is not None
        return gain(self.norm).reshape(-1, *[1] * (self.module.weight.dim() - 1))


def gain(norm: _BatchNorm) -> Tensor:
    """(channels,): what a batch norm multiplies by in evaluation, w / √(v + ε)."""
    assert norm.running_var is not None
    inverse = (norm.running_var + norm.eps).rsqrt()
    return inverse if norm.weight is None else norm.weight.detach() * inverse


def _identity(weight: Tensor) -> Tensor:
    """The weight of the identity: of a square matrix, or of a kernel of odd size."""
    identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    if weight.dim() == 2:
        return identity
    kernel = torch.zeros_like(weight)
    kernel[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = identity
    return kernel


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)
