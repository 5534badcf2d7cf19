"""The layer problem as the semidefinite programme of the optimal-control paper (its Theorem 4), by cvxpy and SCS."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verigrad.core.errors import BadInput

# Of SCS's residuals; the programme's solution was then within 1e-7 of the projection.
TOLERANCE = 1e-8


def solve(
    pull: Tensor,
    theta: Tensor,
    alpha: float,
    beta: float,
    *,
    shifted: bool = False,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """The θ with

        max ⟨G, θ⟩ − α‖θ‖² − β‖θ − θ'‖²   subject to   (I, A; Aᵀ, I) ⪰ 0,   A = θ, or I + θ if `shifted`,

    by a general solver, which takes hundreds of times as long as `spectral.project` of `spectral.unconstrained`
    (benchmarks/training.md). It is here to check that one, and as a beginning for constraints without a closed form.

    Args:
        pull: G = Σ p xᵀ = −∂J/∂θ, (m, n).
        theta: θ', the weights before.
        alpha, beta: from 0 up, not both 0.
        tolerance: of SCS's residuals.

    Raises:
        BadInput: cvxpy or SCS is not installed, or finds no solution.
    """
    cp = _cvxpy()
    g, before = (part.detach().cpu().double().numpy() for part in (pull, theta))
    m, n = g.shape
    found = cp.Variable((m, n))
    # Over α + β, so that the solver sees numbers near 1.
    a, b = alpha / (alpha + beta), beta / (alpha + beta)
    gain = cp.sum(cp.multiply(g / (alpha + beta), found)) - a * cp.sum_squares(found)
    inner = found + np.eye(m) if shifted else found
    constraint = cp.bmat([[np.eye(m), inner], [inner.T, np.eye(n)]]) >> 0
    problem = cp.Problem(cp.Maximize(gain - b * cp.sum_squares(found - before)), [constraint])
    problem.solve(solver="SCS", eps_abs=tolerance, eps_rel=tolerance, max_iters=200_000)
    if problem.status != "optimal" or found.value is None:
        raise BadInput(f"SCS finds no solution of a layer problem of {m}×{n}: {problem.status}. Use solver=clip.")
    return torch.as_tensor(found.value).to(theta)


def _cvxpy() -> Any:
    try:
        importlib.import_module("scs")
        return importlib.import_module("cvxpy")
    except ImportError as fault:
        raise BadInput(
            "solver=sdp needs cvxpy and scs, which are not installed: pip install 'verigrad[sdp]'."
        ) from fault
