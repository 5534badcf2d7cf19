"""How perturbations of the start grow along a walk: the tangent map of the solver itself.

The steps are held as they were recorded. What a perturbation changes by moving the steps is left out: under an adaptive
control it is of the size of the solver's error, and under `BatchCoupled` it reaches other samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.dynamics.jacobian import Derivative, flat, operator_norm, pushed, shaped
from verigrad.models.dynamics.trajectory import Trajectory, hopped, hopping
from verigrad.solvers.state import State


class Stretch(NamedTuple):
    """factor: the largest ‖Dφ v‖ / ‖v‖, (B,) float64, φ the map from the start to the end of the walk.

    exponent: log(factor) / (t1 − t0), the largest finite-time Lyapunov exponent, (B,).
    residual: how far factor² can be from a squared singular value of Dφ, (B,).
    """

    factor: Tensor
    exponent: Tensor
    residual: Tensor


def tangent_map(path: Trajectory) -> Derivative:
    """Dφ, the derivative of the walk's end by its start, in the products that `jacobian.py` works with."""

    def end(t: Tensor, y: State) -> State:
        del t  # the walk has its own times
        for after, _ in hopping(path.field, path.method, path.carries, path.hops, y):
            y = after
        return y

    return Derivative(field=end, t=0.0, y=path.y[0])


def stretch(path: Trajectory, *, iterations: int = 20) -> Stretch:
    """The largest factor by which the walk stretches an infinitesimal perturbation of its start.

    By Lanczos' iteration on DφᵀDφ, each step of it one walk forwards and one backwards.
    """
    top = operator_norm(tangent_map(path), iterations=iterations)
    span = (path.t[:, -1] - path.t[:, 0]).abs()
    return Stretch(top.value, top.value.log() / span, top.residual)


def lyapunov_exponents(path: Trajectory, *, count: int = 1, seed: int = 0) -> Tensor:
    """The `count` largest Lyapunov exponents over a long walk, (B, count) float64, in falling order when it is long.

    Tangents are carried through each step and made orthonormal again (Benettin et al. 1980); the exponents are the mean
    logarithms of what they were shortened by. They start in random directions, so over a short walk they say what
    becomes of those; for the worst direction see `stretch`.

    Args:
        path: of at least one step.
        count: from 1 to the number of entries of a state.
        seed: of the first tangents, which are the same for every sample.

    Raises:
        BadInput: a count out of range, or a walk without steps.
    """
    start = path.y[0]
    batch, dim = flat(start).shape
    if not 1 <= count <= dim:
        raise BadInput(f"The 'count' of lyapunov_exponents must be in 1 to {dim}, the state's entries. Got {count}.")
    if not path.hops:
        raise BadInput("Lyapunov exponents need a walk of at least one step. Got none; let t1 differ from t0.")
    first = torch.randn(dim, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tangents = torch.linalg.qr(first.to(start[0])).Q.expand(batch, -1, -1)
    carried: Tensor | None = None  # the tangents of the derivative that is handed on from step to step
    logs = torch.zeros(batch, count, dtype=torch.float64)
    y, k1 = start, ()
    for hop in path.hops:

        def advance(y: State, k1: State, hop=hop) -> tuple[State, State]:
            return hopped(path.field, path.method, path.carries, hop, y, k1)

        after, k_after, moved, slopes = y, k1, [], []
        for i in range(count):
            v = shaped(tangents[:, :, i], y)
            dk = shaped(carried[:, :, i], k1) if carried is not None else ()
            (after, k_after), (dv, dk) = pushed(advance, (y, k1), (v, dk))
            moved.append(flat(dv))
            slopes.append(flat(dk) if dk else dv[0])
        y, k1 = after, k_after
        tangents, R = torch.linalg.qr(torch.stack(moved, 2))
        logs += R.diagonal(dim1=1, dim2=2).abs().log().double().cpu()
        carried = None
        if k1:
            carried = torch.linalg.solve_triangular(R, torch.stack(slopes, 2), upper=True, left=False)
    return logs / (path.t[:, -1:] - path.t[:, :1]).abs()
