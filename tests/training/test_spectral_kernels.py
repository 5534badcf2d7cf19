"""Kernels inside the ball: against dense matrices, and Dykstra's algorithm for the nearest one."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.training.spectral import project
from verigrad.training.spectral_kernels import Geometry, bound, inside, power_step

CASES = [
    ((3, 2, 3, 3), Geometry((6, 6), padding=(1, 1))),
    ((3, 2, 3, 3), Geometry((5, 7))),
    ((4, 3, 3, 3), Geometry((6, 6), (2, 2), (1, 1))),
    ((3, 2, 4, 4), Geometry((7, 6), (2, 3), (1, 0))),
    ((4, 2, 3, 3), Geometry((6, 6), padding=(1, 1), groups=2)),
    ((4, 1, 3, 3), Geometry((6, 6), (2, 2), (1, 1), groups=4)),
    ((3, 2, 3, 3), Geometry((6, 6), padding=(2, 2), dilation=(2, 2))),
]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense(kernel: Tensor, geometry: Geometry) -> Tensor:
    """The matrix of the convolution, from its images of unit vectors."""
    size, stride, padding, dilation, groups = geometry
    channels = kernel.shape[1] * groups
    units = torch.eye(channels * size[0] * size[1], dtype=kernel.dtype).reshape(-1, channels, *size)
    return F.conv2d(units, kernel, None, stride, padding, dilation, groups).flatten(1).T


def norm(kernel: Tensor, geometry: Geometry) -> float:
    return float(torch.linalg.matrix_norm(dense(kernel.double(), geometry), 2))


@pytest.mark.parametrize(("shape", "geometry"), CASES)
def test_power_iteration_reaches_the_norm_from_below(shape: tuple[int, ...], geometry: Geometry) -> None:
    kernel = drawn(*shape)
    exact = norm(kernel, geometry)
    direction = drawn(1, shape[1] * geometry.groups, *geometry.size)
    direction /= direction.norm()
    seen = []
    for _ in range(300):
        direction, found = power_step(kernel, direction, geometry)
        seen.append(float(found))
    assert direction.norm() == pytest.approx(1)
    assert all(after > before - 1e-9 for before, after in pairwise(seen))
    assert exact * 0.99 < seen[-1] <= exact * (1 + 1e-12)
    assert exact <= bound(kernel, geometry)


def test_the_direction_stays_where_the_kernel_leads_to_zero() -> None:
    direction = torch.full((1, 1, 2, 2), 0.5)
    again, found = power_step(torch.zeros(1, 1, 3, 3), direction, Geometry((2, 2), padding=(1, 1)))
    assert torch.equal(again, direction)
    assert float(found) == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("limit", [1.0, 0.4])
@pytest.mark.parametrize(("shape", "geometry"), CASES)
def test_what_comes_out_is_inside(shape: tuple[int, ...], geometry: Geometry, limit: float, dtype: torch.dtype) -> None:
    kernel = drawn(*shape, dtype=dtype)
    found = inside(kernel, limit, geometry)
    assert found.dtype == dtype
    assert norm(kernel, geometry) > 1.5
    assert 0.6 * limit < norm(found, geometry) <= limit
    assert inside(found, limit, geometry) is found


def test_what_is_inside_or_not_finite_is_returned_itself() -> None:
    kernel, geometry = drawn(3, 2, 3, 3), CASES[0][1]
    small = kernel * (0.999 / bound(kernel, geometry))
    assert inside(small, 1.0, geometry) is small
    broken = torch.full((1, 1, 3, 3), torch.nan)
    assert inside(broken, 1.0, geometry) is broken


def test_a_kernel_without_padding_or_of_one_pixel_is_its_matrix() -> None:
    kernel = drawn(5, 4, 1, 1)
    expected = project(kernel.flatten(1)).reshape(kernel.shape)
    for stride in ((1, 1), (2, 2)):
        found = inside(kernel, 1.0, Geometry((4, 4), stride))
        assert (found - expected).abs().max() < 1e-12


def nearest(kernel: Tensor, pixels: int, rounds: int = 150) -> Tensor:
    """Dykstra's algorithm between circular convolutions in the ball and those with a 3 × 3 support, in pixels."""
    out, channels = kernel.shape[:2]
    points = torch.zeros(out, channels, pixels, pixels, dtype=kernel.dtype)
    points[:, :, :3, :3] = kernel
    correction = torch.zeros_like(points)
    for _ in range(rounds):
        spectrum = torch.fft.fft2(points + correction).permute(2, 3, 0, 1)
        u, s, v = torch.linalg.svd(spectrum, full_matrices=False)
        ball = torch.fft.ifft2(((u * s.clamp(max=1)[..., None, :]) @ v).permute(2, 3, 0, 1)).real
        correction = points + correction - ball
        points = torch.zeros_like(ball)
        points[:, :, :3, :3] = ball[:, :, :3, :3]
    return points[:, :, :3, :3]


def test_it_lies_between_the_nearest_kernel_and_the_scaled_one() -> None:
    kernel, geometry = drawn(4, 4, 3, 3), Geometry((6, 6), padding=(1, 1))
    kernel *= 1.3 / bound(kernel, geometry)
    best = nearest(kernel, 8)
    assert bound(best, geometry) < 1.001
    scaled = kernel / bound(kernel, geometry)
    distances = [float((kernel - other).norm()) for other in (best, inside(kernel, 1.0, geometry), scaled)]
    assert distances == sorted(distances)
    assert distances[1] < 0.9 * distances[2]
