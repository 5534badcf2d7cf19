"""What the Jacobian J of a right-hand side says at a state: logarithmic norm, norm and rightmost eigenvalue.

J is never formed where a state is large: all that is used is J v (forward mode) and Jᵀ u (reverse mode), for all
samples of a batch at once. A sample's J takes no account of its batch-mates, so the field must not couple them.

An iteration bounds its eigenvalue from below; `Extreme.residual` says how far it can be from an eigenvalue at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.dynamics.krylov import Extreme, Operator, arnoldi, lanczos, random_start
from verigrad.solvers.check import checked_field
from verigrad.solvers.state import Field, State, take
from verigrad.solvers.step import clock


def flat(y: State) -> Tensor:
    """The parts of a state as one vector for each sample, (B, D)."""
    return torch.cat([part.reshape(len(part), -1) for part in y], 1)


def shaped(vectors: Tensor, like: State) -> State:
    """(B, D) back in the form of a state."""
    pieces = vectors.split([part[0].numel() for part in like], 1)
    return tuple(piece.reshape(part.shape) for piece, part in zip(pieces, like, strict=True))


@cache
def _forward_mode() -> None:
    """Loads torch's rules of forward mode, which torch 2.13 does by a call that it declares deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def pushed(function: Callable[..., Any], at: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """function(*at), and its derivative along the tangents; no graph."""
    _forward_mode()
    with torch.no_grad():
        value, tangent, *_ = torch.func.jvp(function, at, tangents)
    return value, tangent


@dataclass(frozen=True, kw_only=True)
class Derivative:
    """The derivative J of y ↦ field(t, y) at a state, sample by sample.

    field: from (t, y) to a tuple of tensors in the form of y.
    t: one time for all, or (B,).
    y: the state, B ≥ 1 samples of D entries.
    """

    field: Field
    t: float | Tensor
    y: State

    @property
    def dim(self) -> int:
        """D."""
        return sum(part[0].numel() for part in self.y)

    def single(self, row: int) -> Derivative:
        """That of one sample."""
        t = self.t[row : row + 1] if isinstance(self.t, Tensor) and self.t.dim() else self.t
        return Derivative(field=self.field, t=t, y=take(self.y, torch.tensor([row])))

    def push(self, v: Tensor) -> Tensor:
        """J v for tangents v (B, D)."""
        return flat(pushed(self._at, self.y, shaped(v, self.y))[1])

    def puller(self) -> Operator:
        """u ↦ Jᵀ u for cotangents u (B, D); the field is evaluated once."""
        with torch.no_grad():
            _, pull, *_ = torch.func.vjp(self._at, *self.y)

        def apply(u: Tensor) -> Tensor:
            with torch.no_grad():
                return flat(pull(shaped(u, self.y)))

        return apply

    def dense(self) -> Tensor:
        """J (B, D, D), column by column."""
        columns = torch.eye(self.dim, dtype=self.y[0].dtype, device=self.y[0].device)
        return torch.stack([self.push(column.expand(len(self.y[0]), -1)) for column in columns], 2)

    def _at(self, *y: Tensor) -> State:
        return tuple(self.field(clock(self.t, y[0]), y))


def log_norm(J: Derivative, *, iterations: int = 40) -> Extreme:
    """The logarithmic norm μ₂(J) = λ_max((J + Jᵀ)/2), the largest relative speed at which two nearby solutions part.

    d/dt ‖δ‖ ≤ μ₂ ‖δ‖ for a tangent δ' = J δ, with equality for the eigenvector (Dahlquist 1958; Hairer, Nørsett &
    Wanner I, I.10). By Lanczos' iteration with full orthogonalisation, which finds the algebraically largest eigenvalue
    without a shift.

    Args:
        J: with D entries in a state.
        iterations: of Lanczos, at least 1; those above D do nothing, and at D the value is exact.
    """
    pull = J.puller()
    return lanczos(lambda v: (J.push(v) + pull(v)) / 2, flat(J.y), iterations)


def operator_norm(J: Derivative, *, iterations: int = 40) -> Extreme:
    """The norm ‖J‖₂, by Lanczos' iteration on JᵀJ; arguments as in `log_norm`. The residual is that of JᵀJ."""
    pull = J.puller()
    top = lanczos(lambda v: pull(J.push(v)), flat(J.y), iterations)
    return Extreme(top.value.clamp(min=0).sqrt(), top.residual)


class Rightmost(NamedTuple):
    """value: (B,) float64, the largest real part of an eigenvalue; converged: (B,) bool, whether it is to be trusted.

    Where not, it is the largest real part of a Ritz value, which may lie on either side.
    """

    value: Tensor
    converged: Tensor


def spectral_abscissa(J: Derivative, *, dense_up_to: int = 600, iterations: int = 60) -> Rightmost:
    """max Re λ(J): below zero, a constant J lets every perturbation die out in the end, and says nothing on the way.

    All eigenvalues where a state has at most `dense_up_to` entries, else ARPACK's implicitly restarted Arnoldi
    iteration ("LR"), sample by sample. A spectrum along the imaginary axis, as that of skew fields, has no clear
    rightmost eigenvalue, and ARPACK then gives up.

    Args:
        J: of any D.
        dense_up_to: the largest D for which J is formed.
        iterations: of plain Arnoldi, for the value where ARPACK gives up.
    """
    if J.dim <= max(dense_up_to, 3):
        values = torch.linalg.eigvals(J.dense().double()).real.amax(1)
        return Rightmost(values.cpu(), torch.ones(len(values), dtype=torch.bool))
    found = [_arpack(J.single(row), iterations) for row in range(len(J.y[0]))]
    return Rightmost(torch.tensor([v for v, _ in found]).double(), torch.tensor([c for _, c in found]))


def jacobian(field: Any, t: float | Tensor, y: Tensor | State) -> Derivative:
    """The Jacobian of a right-hand side as `solve` takes it: called with t and a tensor or a tuple, as y is.

    A field that is a module is taken in the mode that it is in.

    Raises:
        BadInput: an empty batch.
    """
    parts = (y,) if isinstance(y, Tensor) else y
    if not len(parts[0]):
        raise BadInput("A Jacobian is taken at a state of at least one sample. Got an empty batch.")

    inner = checked_field(field, is_tensor=isinstance(y, Tensor))
    return Derivative(field=inner, t=t, y=tuple(part.detach() for part in parts))


def _arpack(J: Derivative, iterations: int) -> tuple[float, bool]:
    like = J.y[0]

    def apply(v: Any) -> Any:
        vector = torch.as_tensor(np.asarray(v).reshape(1, -1)).to(like)
        return J.push(vector)[0].double().cpu().numpy()

    kind: Any = LinearOperator  # whose stubs know only the subclass that it makes
    operator = kind((J.dim, J.dim), matvec=apply, dtype=np.dtype(np.float64))
    start = random_start(flat(J.y))[0].double().cpu().numpy()
    accurate: Any = 1e-8 if like.dtype == torch.float64 else 1e-4
    try:
        found = eigs(operator, k=1, which="LR", v0=start, ncv=min(J.dim, 40), maxiter=50, tol=accurate)
        return float(np.asarray(found[0]).real.max()), True
    except ArpackNoConvergence:
        H, _ = arnoldi(J.push, flat(J.y), iterations)
        return float(torch.linalg.eigvals(H).real.max()), False
