"""Norm growth and the spectrum of the Jacobian, measured at the states that a solver passes (`trajectory.py`).

Of these, only the logarithmic norm bounds how solutions grow and part: d/dt ‖y − z‖ ≤ max μ₂ · ‖y − z‖. Eigenvalues of
negative real part at every state do not; see docs/math/stability.md.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.models.dynamics.jacobian import Derivative, Rightmost, log_norm, operator_norm, spectral_abscissa
from verigrad.models.dynamics.trajectory import Trajectory
from verigrad.solvers.state import State


def norms(y: State) -> Tensor:
    """‖y‖ over all parts of the state of each sample, (B,) float64 on the CPU."""
    squares = [part.detach().double().reshape(len(part), -1).square().sum(1) for part in y]
    return torch.stack(squares).sum(0).sqrt().cpu()


def norm_growth(path: Trajectory) -> Tensor:
    """‖y(t)‖ / ‖y(t0)‖ at each accepted time, (B, n + 1) float64; infinite after a start at zero that was left."""
    sizes = torch.stack([norms(y) for y in path.y], 1)
    still = sizes == sizes[:, :1]
    return torch.where(still, 1.0, sizes / sizes[:, :1])


class Stability(NamedTuple):
    """What holds at each accepted time; all (B, n + 1), float64 on the CPU.

    growth: ‖y(t)‖ / ‖y(t0)‖.  log_norm: μ₂(J).  norm: ‖J‖₂; both from below, as `jacobian.py` says.
    """

    t: Tensor
    growth: Tensor
    log_norm: Tensor
    norm: Tensor


def stability(path: Trajectory, *, iterations: int = 40) -> Stability:
    """Growth, logarithmic norm and norm of J along a trajectory; `iterations` are Lanczos' for μ₂ and ‖J‖₂."""
    found = []
    for node, y in enumerate(path.y):
        J = Derivative(field=path.field, t=path.time(node), y=y)
        found.append((log_norm(J, iterations=iterations).value, operator_norm(J, iterations=iterations).value))
    return Stability(path.t, norm_growth(path), *(torch.stack(column, 1) for column in zip(*found, strict=True)))


def abscissas(path: Trajectory, *, dense_up_to: int = 600) -> Rightmost:
    """max Re λ(J) at each accepted time, (B, n + 1), and whether it is to be trusted.

    Apart from `stability`, because all eigenvalues of a large state cost far more than the rest: time grows with the
    cube of its entries. `Trajectory.rows` picks a few samples.
    """
    found = [
        spectral_abscissa(Derivative(field=path.field, t=path.time(node), y=y), dense_up_to=dense_up_to)
        for node, y in enumerate(path.y)
    ]
    return Rightmost(torch.stack([one.value for one in found], 1), torch.stack([one.converged for one in found], 1))
