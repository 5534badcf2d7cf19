"""Krylov spaces for a whole batch: extreme eigenvalues of operators that are known by their products only."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.errors import BadInput

Operator = Callable[[Tensor], Tensor]
"""A linear map of vectors (B, D), sample by sample."""


class Extreme(NamedTuple):
    """value: (B,) float64, not above the true one but for rounding.

    residual: (B,) float64, some eigenvalue of the symmetric operator lies within so much; near zero where the iteration
    has converged.
    """

    value: Tensor
    residual: Tensor


def lanczos(apply: Operator, like: Tensor, iterations: int) -> Extreme:
    """The algebraically largest eigenvalue of a symmetric operator on vectors (B, D) such as `like`."""
    H, tail = arnoldi(apply, like, iterations)
    values, vectors = torch.linalg.eigh((H + H.mT) / 2)
    return Extreme(values[:, -1], (tail * vectors[:, -1, -1]).abs())


def random_start(like: Tensor) -> Tensor:
    """The same random direction for every sample, so that none depends on its batch-mates."""
    noise = torch.randn(like.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise.to(like).expand_as(like)


def arnoldi(apply: Operator, like: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Arnoldi's iteration: the operator on a Krylov space of each sample, (B, m, m) float64, and what leaves it (B,).

    Where the space is exhausted it goes on in a random direction, so that H stays the operator on an orthonormal basis.
    """
    if iterations < 1:
        raise BadInput(f"The 'iterations' of an eigenvalue iteration must be at least 1. Got {iterations}.")
    m, start = min(iterations, like.shape[1]), random_start(like)
    generator = torch.Generator().manual_seed(1)
    basis = (start / start.norm(dim=1, keepdim=True))[:, :, None]
    H = torch.zeros(len(start), m, m, dtype=torch.float64)
    tail = torch.zeros(len(start), dtype=torch.float64)
    for j in range(m):
        image = apply(basis[:, :, j])
        rest, weights = _orthogonal(image, basis)
        H[:, : j + 1, j] = weights.double().cpu()
        length = rest.norm(dim=1)
        exhausted = length <= 100 * torch.finfo(rest.dtype).eps * image.norm(dim=1)
        tail = torch.where(exhausted, 0.0, length).double().cpu()
        if j + 1 == m:
            break
        H[:, j + 1, j] = tail
        if bool(exhausted.any()):
            noise = torch.randn(like.shape[1], generator=generator, dtype=torch.float64).to(rest)
            fresh, _ = _orthogonal(noise.expand_as(rest), basis)
            rest = torch.where(exhausted[:, None], fresh, rest)
        basis = torch.cat([basis, (rest / rest.norm(dim=1, keepdim=True))[:, :, None]], 2)
    return H, tail


def _orthogonal(v: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """v less its part in the span of the basis, by Gram and Schmidt, twice; and the weights of that part."""
    total = v.new_zeros(len(v), basis.shape[2])
    for _ in range(2):
        weights = torch.einsum("bdk,bd->bk", basis, v)
        v = v - torch.einsum("bdk,bk->bd", basis, weights)
        total = total + weights
    return v, total
