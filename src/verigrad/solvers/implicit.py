"""Implicit methods of one stage, for fixed steps: backward Euler and the implicit midpoint rule.

    Y = y + θh f(t + θh, Y),   y(t + h) ≈ y + h f(t + θh, Y)          θ = 1: backward Euler, θ = 1/2: implicit midpoint

Y is found by Anderson's acceleration, sample by sample, and differentiated by the implicit function theorem: the
gradient of Y solves the transposed linear system, v = θh Jᵀ v + g, by the same iteration.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verigrad.core.errors import VerigradError
from verigrad.solvers.anderson import fixed_point
from verigrad.solvers.state import Field, State
from verigrad.solvers.step import clock


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """One implicit method of one stage.

    theta: where in the step the stage lies, in (0, 1].
    iterations, memory, tolerance: of the iteration for the stage, see `fixed_point`; tolerance None takes the
        dtype's unit of rounding to the power 0.6: 4e-10 in float64, 7e-5 in float32.
    """

    name: str
    order: int
    theta: float
    iterations: int = 100
    memory: int = 20
    tolerance: float | None = None


BACKWARD_EULER = Implicit(name="backward_euler", order=1, theta=1.0)
"""Hairer & Wanner II, IV.3; the "implicit Euler" scheme of section 3.3 of the natural-robustness paper."""

IMPLICIT_MIDPOINT = Implicit(name="implicit_midpoint", order=2, theta=1 / 2)
"""Hairer, Nørsett & Wanner I, II.7: the Gauss method of one stage. Under a skew field it keeps the norm."""


def march_implicit(
    field: Field, y: State, times: list[tuple[float, float]], method: Implicit
) -> tuple[State, Tensor, Tensor]:
    """Walk steps (t, h): the end state, who converged on every step (B,) bool, and the calls of the field (0-d)."""
    converged = torch.ones(len(y[0]), dtype=torch.bool)
    calls = 0
    for t, h in times:
        stage, ok, n = _stage(field, y, t + method.theta * h, method.theta * h, method)
        # y1 = y + (Y − y)/θ: by the stage equation this is y + h f(Y).
        y = tuple(a + (b - a) / method.theta for a, b in zip(y, stage, strict=True))
        converged &= ok.cpu()
        calls += n
    return y, converged, torch.tensor(calls)


def _stage(field: Field, y: State, t: float, reach: float, method: Implicit) -> tuple[State, Tensor, int]:
    """Y = y + reach · f(t, Y), attached to the graph of y and of the field's parameters."""
    time = clock(t, y[0])
    base = _flat(y)
    tolerance = method.tolerance or torch.finfo(base.dtype).eps ** 0.6

    def g(z: Tensor) -> Tensor:
        return base.detach() + reach * _flat(field(time, _shaped(z, y)))

    with torch.no_grad():
        found = fixed_point(g, base.detach(), memory=method.memory, iterations=method.iterations, tolerance=tolerance)
    ok = found.residual <= 10 * tolerance
    if not torch.is_grad_enabled():
        return _shaped(found.z, y), ok, found.iterations
    z = found.z.detach().requires_grad_()
    slope = _flat(field(time, _shaped(z, y)))
    value = base + reach * slope
    if value.requires_grad:
        value.register_hook(_solve_transposed(slope, z, reach, method, tolerance))
    return _shaped(value, y), ok, found.iterations + 1


def _solve_transposed(
    slope: Tensor, z: Tensor, reach: float, method: Implicit, tolerance: float
) -> Callable[[Tensor], Tensor]:
    """The hook that turns the gradient g of Y into v = reach · Jᵀ v + g, which flows on through y + reach · f."""

    def hook(gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise VerigradError(
                f"The method {method.name} has no second derivatives (create_graph=True). Use an explicit method."
            )

        def g(v: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(
                slope, z, reach * v, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return pulled + gradient

        return fixed_point(g, gradient, memory=method.memory, iterations=method.iterations, tolerance=tolerance).z

    return hook


def _flat(y: State) -> Tensor:
    return torch.cat([part.reshape(len(part), -1) for part in y], 1)


def _shaped(z: Tensor, like: State) -> State:
    pieces = z.split([part[0].numel() for part in like], 1)
    return tuple(piece.reshape(part.shape) for piece, part in zip(pieces, like, strict=True))
