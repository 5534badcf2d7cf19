"""Kernels kept in the ball ‖K‖₂ ≤ limit, K as an operator on images: cheaply each step, for certain now and then.

The norm of the kernel reshaped to a matrix, which `torch.nn.utils.parametrizations.spectral_norm` divides by, is no
bound on the operator's (PyTorch issue 99149), so it is not used here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from verigrad.core.operator_norm import Pair, frequencies, from_frequencies
from verigrad.training.spectral import MARGIN, bounds, project


class Geometry(NamedTuple):
    """How a kernel acts: `size` is the height and width of the images that it meets; padding is with zeros."""

    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


def power_step(kernel: Tensor, direction: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """One step of power iteration on KᵀK: the next direction, and an estimate of ‖K‖₂ from below, a scalar.

    Args:
        kernel: (out, in / groups, k, k).
        direction: (1, in, H, W), of length 1. It turns towards the image that K stretches most; where K takes it to
            zero it stays.
    """
    _, stride, padding, dilation, groups = geometry
    image = F.conv2d(direction, kernel, None, stride, padding, dilation, groups)
    shape = direction.shape
    # Its annotations know one number for both axes only.
    back = conv2d_input(shape, kernel, image, stride, padding, dilation, groups)  # pyright: ignore[reportArgumentType]
    length = torch.linalg.vector_norm(back)
    # ‖KᵀKv‖ ≤ ‖K‖², and it is no less than ‖Kv‖².
    return torch.where(length > 0, back / length, direction), length.sqrt()


def bound(kernel: Tensor, geometry: Geometry) -> float:
    """A bound on ‖K‖₂: the norm of the circular form on n + k − 1 pixels (`core/operator_norm.py`)."""
    return max(float(bounds(spectrum).max()) for spectrum in _spectra(kernel, geometry))


def inside(kernel: Tensor, limit: float, geometry: Geometry) -> Tensor:
    """A kernel with ‖K‖₂ ≤ limit near the given one; the kernel itself if it is one by `bound`.

    Each frequency's matrix is projected exactly, what falls outside the kernel's support is cut off (Sedghi, Gupta &
    Long 2019), and since that can lead out of the ball again the whole is scaled to `bound` = limit. It is not the
    nearest one, which Dykstra's algorithm would find in many such rounds. What is not finite is returned as it is.
    """
    if not bool(torch.isfinite(kernel).all()):
        return kernel
    parts = kernel.chunk(geometry.groups)
    spectra = _spectra(kernel, geometry)
    over = [bounds(spectrum) > limit for spectrum in spectra]
    if not any(bool(one.any()) for one in over):
        return kernel
    clipped = []
    for part, spectrum, rows in zip(parts, spectra, over, strict=True):
        spectrum[rows] = project(spectrum[rows], limit)
        clipped.append(from_frequencies(spectrum, part, geometry.size, geometry.stride, geometry.dilation))
    found = torch.cat(clipped)
    # A little less, so that the bound of what comes out is not above the limit again.
    return found * min(1.0, limit * (1 - MARGIN * torch.finfo(kernel.dtype).eps) / bound(found, geometry))


def _spectra(kernel: Tensor, geometry: Geometry) -> list[Tensor]:
    """The matrices of each group."""
    size, stride, _, dilation, groups = geometry
    return [frequencies(part, size, stride, dilation) for part in kernel.chunk(groups)]
