"""The exact projection of matrices onto the ball ‖θ‖₂ ≤ r, and onto that ball around −I.

The layer problem of the optimal-control paper (its section 4.2, with the constraint of Theorem 4 in place of ρ ≤ 1),

    max_θ  ⟨G, θ⟩ − α‖θ‖² − β‖θ − θ'‖²   subject to   ‖θ‖₂ ≤ 1,   G = Σ p xᵀ,   ‖·‖ the Frobenius norm,

is −(α + β)‖θ − M‖² plus a constant, M = (G + 2βθ') / (2(α + β)): its one solution is the Euclidean projection of M.
The ball is unitarily invariant, so that this is U min(S, 1) Vᵀ for M = U S Vᵀ. No general semidefinite programme is
needed; `layer_sdp.py` has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Singular values are cut to 1 − MARGIN · (rounding unit), so that what comes out is in the ball in spite of rounding.
# In float32 up to 512×4608 the error of the norm was at most 11 units.
MARGIN = 16
# Beside a large singular value the small ones lose digits, most of all in the Gram matrix: above this, float64 is used.
COARSE = 2.0


def unconstrained(pull: Tensor, theta: Tensor, alpha: float, beta: float) -> Tensor:
    """M, the maximum of the layer problem without its constraint: an SGD step at rate 1 / (2(α + β)), decay 2α.

    Args:
        pull: G = Σ p xᵀ = −∂J/∂θ.
        theta: θ', the weights before.
        alpha, beta: from 0 up, not both 0.
    """
    return (pull + 2 * beta * theta) / (2 * (alpha + beta))


def project(theta: Tensor, limit: float = 1.0) -> Tensor:
    """The nearest matrix with ‖·‖₂ ≤ limit, for each of (..., m, n), real or complex. A new tensor, or `theta` itself.

    Only singular values above the limit are touched: θ − θ V_k (1 − limit / s_k) V_kᴴ, with s_k² and V_k the
    eigenvalues and eigenvectors of the smaller Gram matrix. What is not finite is returned as it is.
    """
    cap = limit * (1 - MARGIN * torch.finfo(theta.dtype).eps)
    lengths = torch.linalg.matrix_norm(theta)
    if not bool(torch.isfinite(lengths).all()) or bool((lengths <= cap).all()):
        return theta
    wide = theta.shape[-2] < theta.shape[-1]
    clipped = _clipped(theta.mH if wide else theta, cap)
    return clipped.mH if wide else clipped


def project_shifted(theta: Tensor, limit: float = 1.0) -> Tensor:
    """The nearest square matrix with ‖I + θ‖₂ ≤ limit: with it x ↦ x + θx is as stable as ‖θ‖ ≤ limit makes x ↦ θx."""
    identity = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    return project(theta + identity, limit) - identity


def bounds(matrices: Tensor) -> Tensor:
    """‖·‖₂ of each of (..., m, n), by the smaller Gram matrix, enlarged so that rounding does not make it too small."""
    tall = matrices.mH if matrices.shape[-2] < matrices.shape[-1] else matrices
    squares = torch.linalg.eigvalsh(tall.mH @ tall)[..., -1].clamp_min(0)
    return squares.sqrt() * (1 + 2 * MARGIN * torch.finfo(squares.dtype).eps)


def _clipped(tall: Tensor, cap: float) -> Tensor:
    """Singular values above `cap` brought down to it; the tensor itself where there are none."""
    squares, vectors = torch.linalg.eigh(tall.mH @ tall)
    if squares.dtype != torch.float64 and float(squares.max()) > (COARSE * cap) ** 2:
        return _clipped(tall.to(torch.promote_types(tall.dtype, torch.float64)), cap).to(tall.dtype)
    singular = squares.clamp_min(0).sqrt()
    count = int((singular > cap).sum(-1).max())
    if count == 0:
        return tall
    singular, vectors = singular[..., -count:], vectors[..., -count:]
    cut = (1 - cap / singular).clamp_min(0)
    return tall - ((tall @ vectors) * cut[..., None, :]) @ vectors.mH
