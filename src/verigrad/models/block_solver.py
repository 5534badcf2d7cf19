"""How an ODE block is solved, as a value and by plain words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from verigrad.core.errors import BadInput
from verigrad.models.fields import State
from verigrad.solvers import (
    BACKWARD_EULER,
    BOSH3,
    DOPRI5,
    EULER,
    HEUN2,
    IMPLICIT_MIDPOINT,
    MIDPOINT,
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    TSIT5,
    Adjoint,
    BatchCoupled,
    Checkpointed,
    Control,
    Direct,
    Fixed,
    Gradient,
    Implicit,
    Method,
    PerSample,
    Solution,
    solve,
)

METHODS: dict[str, Method] = {
    "euler": EULER,
    "midpoint": MIDPOINT,
    "rk4": RK4_38,
    "heun2": HEUN2,
    "bosh3": BOSH3,
    "dopri5": DOPRI5,
    "tsit5": TSIT5,
    "backward_euler": BACKWARD_EULER,
    "implicit_midpoint": IMPLICIT_MIDPOINT,
}
"""The names that torchdiffeq and the SONet code use, where "rk4" is the 3/8 rule and adaptive Heun is here "heun2"."""

GridName = Literal["all", "first", "frozen"]
GradientName = Literal["direct", "checkpointed", "adjoint"]


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a block is solved: everything that `solve` takes besides the field and the start."""

    method: Method
    control: Control
    gradient: Gradient
    t0: float = 0.0
    t1: float = 1.0

    def __call__(self, field: Callable[..., Any], y0: State) -> Solution:
        return solve(
            field,
            y0,
            t0=self.t0,
            t1=self.t1,
            method=self.method,
            control=self.control,
            gradient=self.gradient,
        )


RELEASED = Solver(
    method=DOPRI5,
    control=BatchCoupled(rtol=0.1, atol=0.1, end="interpolate", law=TORCHDIFFEQ_0_0_1),
    gradient=Direct(grid="all"),
)
"""What the SONet code runs: torchdiffeq 0.0.1, dopri5, tolerance 0.1, backpropagation through everything."""


def named_solver(
    *,
    method: str,
    tol: float,
    control: Literal["batch", "sample"],
    steps: int,
    grid: GridName,
    t1: float = 1.0,
    gradient: GradientName = "direct",
) -> Solver:
    """The solver that plain words describe, over [0, t1] and under the law of torchdiffeq 0.0.1.

    Args:
        method: one of `METHODS`. Those without an error estimate take equal steps.
        tol: rtol and atol of the adaptive methods, and of the solve back in time of the adjoint.
        control: whether the batch shares its steps ("batch") or each sample has its own ("sample").
        steps: how many equal steps the other methods take.
        grid: what of the time grid is differentiated by "direct"; the other two take it as constant.
        t1: where the solve ends, above 0.
        gradient: "direct" through the steps, "checkpointed" the same in less memory, "adjoint" the continuous adjoint.

    Raises:
        BadInput: for an unknown word or a number out of range.
    """
    if method not in METHODS:
        raise BadInput(f"The 'method' must be one of {', '.join(METHODS)}. Got {method!r}.")
    if control not in ("batch", "sample"):
        raise BadInput(f"The 'control' must be 'batch' or 'sample'. Got {control!r}.")
    if not 0.0 < t1 < math.inf:
        raise BadInput(f"The 't1' must be a finite number above 0. Got {t1!r}.")
    chosen = METHODS[method]
    return Solver(
        method=chosen,
        control=_named_control(chosen, tol, control, steps),
        gradient=_named_gradient(chosen, gradient, tol, grid),
        t1=float(t1),
    )


def _named_control(method: Method, tol: float, control: Literal["batch", "sample"], steps: int) -> Control:
    if isinstance(method, Implicit) or method.error is None:
        return Fixed(steps=steps)
    kind = BatchCoupled if control == "batch" else PerSample
    return kind(rtol=tol, atol=tol, end="interpolate", law=TORCHDIFFEQ_0_0_1)


def _named_gradient(method: Method, gradient: str, tol: float, grid: GridName) -> Gradient:
    if gradient == "direct":
        return Direct(grid=grid)
    if isinstance(method, Implicit):
        raise BadInput(f"The implicit method {method.name} is differentiated by 'direct' only. Got {gradient!r}.")
    if gradient == "checkpointed":
        return Checkpointed()
    if gradient == "adjoint":
        return Adjoint(rtol=tol, atol=tol)
    raise BadInput(f"The 'gradient' must be 'direct', 'checkpointed' or 'adjoint'. Got {gradient!r}.")
