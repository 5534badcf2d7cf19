"""A convolution by its frequencies: against dense matrices, and back again."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.core.operator_norm import conv_norm, frequencies, from_frequencies, grid, largest_singular

SHAPES = [
    ((4, 3, 3, 3), (6, 6), (1, 1), (1, 1)),
    ((4, 3, 3, 3), (5, 6), (1, 1), (1, 1)),
    ((2, 3, 3, 3), (6, 6), (2, 2), (1, 1)),
    ((3, 2, 3, 3), (7, 6), (3, 2), (1, 1)),
    ((3, 2, 3, 3), (6, 5), (1, 1), (2, 2)),
    ((2, 2, 4, 3), (5, 5), (1, 2), (2, 1)),
    ((3, 2, 1, 1), (4, 4), (2, 2), (1, 1)),
]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def circular(weight: Tensor, size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """The dense matrix of the circular convolution, column by column."""
    channels = weight.shape[1]
    columns = torch.eye(channels * math.prod(size), dtype=torch.float64).reshape(-1, channels, *size)
    reach = [(k - 1) * d for k, d in zip(weight.shape[2:], dilation, strict=True)]
    wrapped = F.pad(columns, (0, reach[1], 0, reach[0]), mode="circular")
    return F.conv2d(wrapped, weight, stride=stride, dilation=dilation).flatten(1)


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), SHAPES)
def test_frequencies_have_the_singular_values_of_the_circular_convolution(shape, size, stride, dilation) -> None:
    weight = drawn(*shape)
    spread = tuple((k - 1) * d + 1 for k, d in zip(shape[2:], dilation, strict=True))
    h, w = grid(size, spread, stride)
    found = torch.linalg.svdvals(frequencies(weight, size, stride, dilation)).reshape(h, w // 2 + 1, -1)
    # Those with a partner at the opposite frequency stand for two.
    partners = found[:, 1 : (w + 1) // 2]
    every = torch.cat([found.flatten(), partners.flatten()]).sort().values
    dense = torch.linalg.svdvals(circular(weight, (h * stride[0], w * stride[1]), stride, dilation)).sort().values
    assert torch.allclose(every[-len(dense) :], dense, atol=1e-10)
    assert (every[: -len(dense)] < 1e-10).all()


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), SHAPES)
def test_a_kernel_comes_back_from_its_frequencies(shape, size, stride, dilation) -> None:
    weight = drawn(*shape)
    again = from_frequencies(frequencies(weight, size, stride, dilation), weight, size, stride, dilation)
    assert (again - weight).abs().max() < 1e-12


def test_what_falls_outside_of_the_support_is_left_out() -> None:
    """A larger kernel's frequencies give its first pixels: the nearest kernel of that support."""
    wide, narrow = drawn(2, 2, 5, 5), torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    spectrum = frequencies(wide, (4, 4))  # 8 × 8 frequencies, as for 3 × 3 pixels on 6 × 6
    assert (from_frequencies(spectrum, narrow, (6, 6)) - wide[:, :, :3, :3]).abs().max() < 1e-12


@pytest.mark.parametrize("groups", [1, 2])
def test_the_bound_is_above_power_iteration_and_near_it(groups: int) -> None:
    weight, x = drawn(4, 4 // groups, 3, 3), drawn(1, 4, 8, 8)
    for _ in range(200):
        x = x / x.norm()
        y = F.conv2d(x, weight, padding=1, groups=groups)
        x = F.conv_transpose2d(y, weight, padding=1, groups=groups)
    below = float(x.norm().sqrt())
    bound = conv_norm(weight, (8, 8), groups=groups)
    assert below <= bound <= 1.1 * below


def test_what_is_not_finite_has_no_finite_norm() -> None:
    assert largest_singular(torch.tensor([[1.0, torch.nan]])) == math.inf
    assert conv_norm(torch.full((1, 1, 3, 3), torch.inf), (4, 4)) == math.inf
