"""The constraint ‖θ‖₂ ≤ 1 on the layers of a network after an update of its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from verigrad.core.seeds import seeded
from verigrad.training.spectral import bounds, project
from verigrad.training.spectral_kernels import bound, inside, power_step
from verigrad.training.spectral_layers import Layer, gain

MEMORY = "direction/"


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """Brings layers inside the ball, in place. With θ as `Layer` has it:

    a matrix, or a kernel of one pixel: projected exactly (`spectral.project`);
    a larger kernel: scaled by one warm step of power iteration, which sees the norm from below; or, if `sure`,
        projected frequency by frequency and scaled to a bound (`spectral_kernels.inside`);
    a batch norm that no layer feeds: a diagonal matrix, projected exactly.

    Args:
        memory: of the training; the directions of power iteration are kept in it.
        sure: whether kernels are brought inside for certain.
    """

    memory: dict[str, Tensor]
    sure: bool

    def __call__(self, layer: Layer) -> bool:
        """Constrains a layer. Returns whether it was outside. One that is not finite is left to the trainer's check."""
        kernel = layer.kernel()
        if not bool(torch.isfinite(kernel).all()):
            return False
        if layer.only_scales or not (layer.is_matrix or self.sure):
            norm = self._norm(layer, kernel)
            if norm > layer.limit:
                layer.scale(layer.limit / norm)
            return norm > layer.limit
        if layer.is_matrix:
            parts = [project(part.flatten(1)) for part in kernel.chunk(layer.groups)]
            nearer = torch.cat(parts).reshape(kernel.shape)
        else:
            nearer = inside(kernel, layer.limit, layer.geometry)
        # What is inside is not written, so that rounding does not move it.
        outside = not torch.equal(nearer, kernel)
        if outside:
            layer.put(nearer)
        return outside

    def diagonal(self, norm: _BatchNorm) -> bool:
        """Constrains a batch norm that stands alone. Returns whether it was outside."""
        factor = gain(norm).abs().clamp_min(1)
        norm.weight.detach().div_(factor)
        return bool((factor > 1).any())

    def _norm(self, layer: Layer, kernel: Tensor) -> float:
        """An estimate of the operator norm: a bound if `sure`, and exact for a matrix."""
        if layer.is_matrix:
            return max(float(bounds(part.flatten(1))) for part in kernel.chunk(layer.groups))
        if self.sure:
            return bound(kernel, layer.geometry)
        name = MEMORY + layer.name
        shape = (kernel.shape[1] * layer.groups, *layer.size)
        direction = self.memory.get(name)
        if direction is None or tuple(direction.shape[1:]) != shape:
            direction = seeded(0, name, [0], kernel.device).normal(*shape, dtype=kernel.dtype)
            direction = direction / torch.linalg.vector_norm(direction)
        self.memory[name], norm = power_step(kernel, direction, layer.geometry)
        return float(norm)
