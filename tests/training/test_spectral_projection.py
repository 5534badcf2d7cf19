"""The projection onto the spectral ball: against the SVD, a semidefinite programme, and what defines a projection."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.training import layer_sdp
from verigrad.training.spectral import bounds, project, project_shifted, unconstrained

SHAPES = [(1, 1), (5, 5), (7, 3), (3, 7), (40, 24), (10, 200)]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_svd(matrix: Tensor, limit: float = 1.0) -> Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u * s.clamp(max=limit)[..., None, :]) @ v


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.1, 1.0, 1e4])
@pytest.mark.parametrize("limit", [1.0, 0.3])
def test_singular_values_are_cut(shape: tuple[int, int], size: float, limit: float) -> None:
    matrix = size * drawn(*shape)
    assert (project(matrix, limit) - by_svd(matrix, limit)).abs().max() < 1e-12 * max(1.0, size)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0.1, 1.0, 1e4])
def test_in_float32_the_ball_is_kept_in_spite_of_rounding(shape: tuple[int, int], size: float) -> None:
    matrix = size * drawn(*shape, dtype=torch.float32)
    found = project(matrix)
    assert found.dtype == torch.float32
    assert float(torch.linalg.matrix_norm(found.double(), 2)) <= 1
    assert (found - by_svd(matrix.double())).abs().max() < 5e-6


def test_what_is_inside_is_returned_itself() -> None:
    matrix = drawn(6, 4)
    matrix /= 1.01 * torch.linalg.matrix_norm(matrix, 2)  # its Frobenius norm is above 1
    assert project(matrix) is matrix
    assert project(torch.zeros(3, 3)).count_nonzero() == 0


def test_only_singular_values_above_one_move() -> None:
    u, v = (torch.linalg.qr(drawn(6, 6, seed=seed)).Q for seed in (1, 2))
    s = torch.tensor([5.0, 1.2, 0.9, 0.4, 1e-8, 0.0], dtype=torch.float64)
    cut = torch.linalg.svdvals(project((u * s) @ v.T))
    assert torch.allclose(cut, torch.tensor([1.0, 1.0, 0.9, 0.4, 1e-8, 0.0], dtype=torch.float64), atol=1e-13)


def test_many_complex_matrices_at_once() -> None:
    matrices = torch.complex(drawn(2, 3, 5, 4), drawn(2, 3, 5, 4, seed=1)) * torch.rand(2, 3, 1, 1)
    assert (project(matrices) - by_svd(matrices)).abs().max() < 1e-12
    assert (project(matrices.mH) - by_svd(matrices).mH).abs().max() < 1e-12
    exact = torch.linalg.matrix_norm(matrices, 2)
    assert (bounds(matrices) >= exact).all()
    assert (bounds(matrices) <= exact * (1 + 1e-13)).all()


@pytest.mark.parametrize("fault", [torch.nan, torch.inf])
def test_what_is_not_finite_stays(fault: float) -> None:
    matrix = torch.full((2, 2), fault)
    assert project(matrix) is matrix


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_it_is_the_nearest_point(shape: tuple[int, int]) -> None:
    """⟨M − P, Z − P⟩ ≤ 0 for each Z of the ball: what a projection onto a convex set is."""
    matrix = drawn(*shape)
    found = project(matrix)
    for seed in range(50):
        other = drawn(*shape, seed=seed + 1)
        other /= torch.linalg.matrix_norm(other, 2)
        assert ((matrix - found) * (other - found)).sum() <= 1e-12


def hamiltonian(theta: Tensor, pull: Tensor, before: Tensor, alpha: float, beta: float) -> Tensor:
    return (pull * theta).sum() - alpha * theta.square().sum() - beta * (theta - before).square().sum()


@pytest.mark.parametrize(("alpha", "beta"), [(1e-3, 49.999), (0.5, 0.0), (0.0, 2.0)])
def test_the_unconstrained_maximum_is_one_and_a_step_of_sgd(alpha: float, beta: float) -> None:
    pull, before = drawn(3, 4), drawn(3, 4, seed=1)
    found = unconstrained(pull, before, alpha, beta).requires_grad_()
    (slope,) = torch.autograd.grad(hamiltonian(found, pull, before, alpha, beta), found)
    assert slope.abs().max() < 1e-12
    rate = 1 / (2 * (alpha + beta))
    weight = before.clone().requires_grad_()
    weight.grad = -pull
    torch.optim.SGD([weight], lr=rate, weight_decay=2 * alpha).step()
    assert (weight - found).abs().max() < 1e-12


# 0.8 makes nearly all of the constraint's edges active, 0.05 none.
@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (6, 3), (1, 5)])
@pytest.mark.parametrize("size", [0.05, 0.8])
def test_the_closed_form_solves_the_semidefinite_programme(shape: tuple[int, int], size: float) -> None:
    pull, before = size * drawn(*shape), size * drawn(*shape, seed=1)
    expected = layer_sdp.solve(pull, before, 0.1, 0.4)
    found = project(unconstrained(pull, before, 0.1, 0.4))
    assert (found - expected).abs().max() < 1e-6


def test_it_does_with_a_rank_of_one() -> None:
    pull = 5 * torch.outer(drawn(5), drawn(4, seed=1))
    found = project(unconstrained(pull, torch.zeros(5, 4, dtype=torch.float64), 0.1, 0.4))
    assert torch.linalg.matrix_rank(found, atol=1e-9) == 1
    assert (found - layer_sdp.solve(pull, torch.zeros_like(pull), 0.1, 0.4)).abs().max() < 1e-6


@pytest.mark.parametrize("size", [0.1, 2.0])
def test_the_shifted_ball_solves_its_programme(size: float) -> None:
    pull, before = size * drawn(4, 4), size * drawn(4, 4, seed=1)
    expected = layer_sdp.solve(pull, before, 0.1, 0.4, shifted=True)
    found = project_shifted(unconstrained(pull, before, 0.1, 0.4))
    assert (found - expected).abs().max() < 1e-6
    # A control: the ball around 0 has another point.
    assert (project(unconstrained(pull, before, 0.1, 0.4)) - expected).abs().max() > 1e-2


def test_a_skip_around_the_shifted_ball_does_not_expand() -> None:
    identity = torch.eye(8, dtype=torch.float64)
    matrix = 3 * drawn(8, 8)
    assert float(torch.linalg.matrix_norm(identity + project_shifted(matrix), 2)) <= 1 + 1e-12
    # ‖θ‖ ≤ 1 alone leaves x + θx a constant of up to 2.
    assert float(torch.linalg.matrix_norm(identity + project(matrix + 6 * identity), 2)) > 1.9


def test_without_cvxpy_the_programme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BadInput, match=r"pip install 'verigrad\[sdp\]'") as caught:
        layer_sdp.solve(drawn(2, 2), drawn(2, 2), 0.1, 0.4)
    assert "\n" not in str(caught.value)
