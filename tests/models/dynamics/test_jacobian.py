"""Norms and eigenvalues of Jacobians against matrices whose own are known."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.dynamics.jacobian import flat, jacobian, log_norm, operator_norm, shaped, spectral_abscissa
from verigrad.models.fields import SkewConvField

F64 = torch.float64


def linear(A: Tensor):
    """y' = A y, with a matrix (D, D) for all or (B, D, D) of their own."""
    return lambda t, y: torch.einsum("...ij,...j->...i", A, y)


def matrices(batch: int, dim: int, seed: int = 0) -> Tensor:
    noise = torch.randn(batch, dim, dim, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return noise / dim**0.5


def by_numpy(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sym = [np.linalg.eigvalsh((a + a.T) / 2).max() for a in A.numpy()]
    norm = [np.linalg.norm(a, 2) for a in A.numpy()]
    right = [np.linalg.eigvals(a).real.max() for a in A.numpy()]
    return torch.tensor(sym), torch.tensor(norm), torch.tensor(right)


@pytest.mark.parametrize("dim", [1, 2, 7, 30])
def test_a_linear_field_has_the_norms_and_eigenvalues_of_its_matrix(dim):
    A = matrices(3, dim)
    J = jacobian(linear(A), 0.0, torch.ones(3, dim, dtype=F64))
    for found, wanted in zip((log_norm(J), operator_norm(J), spectral_abscissa(J)), by_numpy(A), strict=True):
        torch.testing.assert_close(found[0], wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(J.dense(), A)


def test_the_log_norm_of_a_contraction_is_negative():
    """The algebraically largest is found, also where one of larger modulus lies on the other side."""
    A = torch.diag(torch.tensor([-1.0, -2.0, -50.0], dtype=F64))
    assert float(log_norm(jacobian(linear(A), 0.0, torch.ones(1, 3, dtype=F64))).value) == pytest.approx(-1.0)


def test_repeated_eigenvalues_exhaust_the_krylov_space_and_do_no_harm():
    """−I spoils a Lanczos iteration that fills up with zeros: its top would be 0."""
    J = jacobian(lambda t, y: -y, 0.0, torch.ones(2, 9, dtype=F64))
    torch.testing.assert_close(log_norm(J).value, -torch.ones(2, dtype=F64))
    torch.testing.assert_close(operator_norm(J).value, torch.ones(2, dtype=F64))


def test_a_large_symmetric_operator_is_met_from_below_with_an_honest_residual():
    spectrum = torch.linspace(-3, 1, 800, dtype=F64)
    J = jacobian(lambda t, y: y * spectrum, 0.0, torch.ones(1, 800, dtype=F64))
    for iterations in (3, 10, 60):
        value, residual = (float(v) for v in log_norm(J, iterations=iterations))
        assert value <= 1 + 1e-12
        assert (spectrum - value).abs().min() <= residual + 1e-12
    assert value == pytest.approx(1.0, abs=1e-2)


def test_arnoldi_finds_the_rightmost_of_a_large_state():
    """Pairs a ± ib on the diagonal, the rightmost apart from the others."""
    a = torch.linspace(-2, -1, 40, dtype=F64)
    a[17] = 0.25
    blocks = [torch.tensor([[x, 3.0], [-3.0, x]], dtype=F64) for x in a.tolist()]
    A = torch.block_diag(*blocks)
    J = jacobian(linear(A), 0.0, torch.ones(2, 80, dtype=F64))
    found = spectral_abscissa(J, dense_up_to=10)
    assert found.converged.all()
    torch.testing.assert_close(found.value, torch.full((2,), 0.25, dtype=F64), rtol=0, atol=1e-6)


def test_arnoldi_says_when_it_gave_up(monkeypatch):
    """As it does on spectra along the imaginary axis; then the Ritz values of a skew matrix are imaginary too."""

    def gives_up(*_, **__):
        raise ArpackNoConvergence("No convergence", np.empty(0), np.empty((0, 0)))

    monkeypatch.setattr("verigrad.models.dynamics.jacobian.eigs", gives_up)
    A = matrices(1, 100)[0]
    found = spectral_abscissa(jacobian(linear(A - A.T), 0.0, torch.ones(1, 100, dtype=F64)), dense_up_to=10)
    assert not found.converged
    assert found.value.abs() < 1e-9


def test_push_and_pull_agree_with_finite_differences_on_a_tuple_state():
    field = SkewConvField(2, 4, stride=2).double().requires_grad_(False)
    y = field.initial(torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=F64))
    J = jacobian(field, 0.0, y)
    v, u = torch.randn(2, 3, J.dim, generator=torch.Generator().manual_seed(1), dtype=F64)
    time, h = torch.zeros((), dtype=F64), 1e-6
    ends = [flat(field(time, shaped(flat(y) + sign * h * v, y))) for sign in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * h)
    assert (J.push(v) - difference).norm() < 1e-6 * difference.norm()
    torch.testing.assert_close((J.push(v) * u).sum(1), (J.puller()(u) * v).sum(1), rtol=1e-10, atol=0)


def test_the_time_reaches_each_sample():
    t = torch.tensor([1.0, 4.0], dtype=F64)
    J = jacobian(lambda t, y: y * t[:, None], t, torch.ones(2, 3, dtype=F64))
    torch.testing.assert_close(operator_norm(J).value, t)
    assert float(operator_norm(J.single(1)).value) == pytest.approx(4.0)


def test_no_sample_depends_on_its_batch_mates():
    A = matrices(3, 40)
    y = torch.ones(3, 40, dtype=F64)
    together = log_norm(jacobian(linear(A), 0.0, y), iterations=10).value
    alone = log_norm(jacobian(linear(A[1:2]), 0.0, y[1:2]), iterations=10).value
    torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=0)


def test_bad_input_is_refused():
    J = jacobian(linear(matrices(1, 2)), 0.0, torch.ones(1, 2, dtype=F64))
    with pytest.raises(BadInput, match="at least 1"):
        log_norm(J, iterations=0)
    with pytest.raises(BadInput, match="empty batch"):
        jacobian(linear(matrices(1, 2)), 0.0, torch.ones(0, 2, dtype=F64))
