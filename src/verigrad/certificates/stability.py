"""How far an ODE block can carry two inputs apart: Runge-Kutta steps of a field with a known Jacobian range.

One step of a method (A, b) from u and from v, where f(u) − f(v) = J (u − v), carries the difference v₀ = u − v through
stages d_j = v₀ + h Σ_l a_jl J_l d_l to d = v₀ + h Σ_l b_l J_l d_l. So with ‖J‖ ≤ L it is at most R̂(hL) ‖v₀‖,
R̂(x) = 1 + Σ_k |b|ᵀ|A|ᵏ1 xᵏ⁺¹. If J_l = C + E_l, C one fixed normal matrix, ‖E_l‖ ≤ δ, then solving for the d_j
gives

    d_j = R_j(hC) v₀ + h Σ_l P_jl(hC) E_l d_l,      P(z) = A (I − zA)⁻¹,  R_j(z) = 1 + z Σ_l P_jl(z),

polynomials, whose norms are their largest values on h times the eigenvalues of C. So with the row b below A,

    ‖d_j‖ ≤ D_j ‖v₀‖,      D_j = max |R_j| + hδ Σ_l max |P_jl| D_l,      and the last D_j is the bound.

For a linear field δ = 0 and this is the norm of the step itself. Proofs: docs/math/bounds.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from verigrad.certificates.field_range import FieldRange, field_range
from verigrad.models.ode_block import ODEBlock
from verigrad.solvers import Fixed, Implicit
from verigrad.solvers.tableau import Tableau

# Rounding of the roots below, generously: they are computed to about 1e-13.
WIDER = 1 + 1e-9


class BlockGain(NamedTuple):
    """A block's Lipschitz constant.

    Args:
        value: the constant; infinite where it overflows.
        proved: whether it holds for the steps that the block takes.
        why: what stands in the way of a proof, or "".
    """

    value: float
    proved: bool
    why: str = ""


def block_gain(block: ODEBlock, given: tuple[int, ...], norm: str) -> BlockGain:
    """The Lipschitz constant of an ODE block in the norm "l2" or "linf".

    Under equal steps of an explicit method it is that of the steps. Under steps that depend on the input there is none
    that is proved: then it is that of the exact flow, exp((t1 − t0) μ) with μ a bound on the logarithmic norm. Implicit
    methods: as if their stages were solved exactly.

    Args:
        block: in float64.
        given: the shape of its input without the batch.

    Raises:
        BadInput: for a field of which nothing is known.
    """
    found = field_range(block.field, given, norm)
    solver = block.solver
    span = abs(solver.t1 - solver.t0)
    if not isinstance(solver.control, Fixed):
        flow = found.start * _exp(span * found.growth)
        return BlockGain(
            flow, False, "its steps are chosen anew for each input, so the bound is that of the exact flow"
        )
    steps = solver.control.steps
    h = span / steps
    if isinstance(solver.method, Implicit):
        step = implicit_gain(solver.method, h, found)
        return BlockGain(found.start * _power(step, steps), False, "its stages are found by iteration, to a tolerance")
    return BlockGain(found.start * _power(step_gain(solver.method, h, found), steps), True)


def step_gain(method: Tableau, h: float, found: FieldRange) -> float:
    """A bound on the Lipschitz constant of one step of length h ≥ 0; infinite where it overflows."""
    plain = _horner(majorant(method), h * found.lipschitz)
    stages: list[float] = []
    for row in variation(method):
        # Row j of P has its coefficients of zᵏ in row k.
        bent = sum(
            largest(row[:, place].tolist(), h * found.damping, h * found.frequency) * reach
            for place, reach in enumerate(stages)
        )
        own = [1.0, *row.sum(1).tolist()]
        stages.append(largest(own, h * found.damping, h * found.frequency) + h * found.spread * bent)
    return min(plain, stages[-1]) if math.isfinite(stages[-1]) else plain


def variation(method: Tableau) -> list[np.ndarray]:
    """For each stage, and last for the step, the coefficients (power of z, stage) of its row of (A; b)(I − zA)⁻¹."""
    A, b = _matrix(method)
    powers = [np.vstack([A, b])]
    for _ in range(method.stages - 1):
        powers.append(powers[-1] @ A)
    return list(np.stack(powers).transpose(1, 0, 2))


def _matrix(method: Tableau) -> tuple[np.ndarray, np.ndarray]:
    A = np.zeros((method.stages, method.stages))
    for i, row in enumerate(method.a):
        A[i, : len(row)] = row
    return A, np.array(method.b)


def implicit_gain(method: Implicit, h: float, found: FieldRange) -> float:
    """Of y₁ = y + (Y − y)/θ, Y = y + θh f(Y), exactly solved; infinite where θhμ ≥ 1.

    One Jacobian serves the step, so it is I + hJ(I − θhJ)⁻¹; with μ(J) ≤ μ, backward Euler has 1/(1 − hμ), and the
    midpoint rule max(1, (1 + hμ/2)/(1 − hμ/2)) (von Neumann 1951; Hairer & Wanner II, IV.11).
    """
    reach = method.theta * h * found.growth
    if reach >= 1:
        return math.inf
    if method.theta == 1:
        return 1 / (1 - reach)
    if method.theta == 1 / 2 and found.normal_norm:
        return max(1.0, (1 + reach) / (1 - reach))
    return 1 + h * found.lipschitz / (1 - reach)


def stability_function(method: Tableau) -> list[float]:
    """Coefficients of R(z) = 1 + Σ_k bᵀAᵏ1 zᵏ⁺¹, lowest first (Hairer & Wanner II, IV.2)."""
    return _coefficients(method, absolute=False)


def majorant(method: Tableau) -> list[float]:
    """Coefficients of R̂(x) = 1 + Σ_k |b|ᵀ|A|ᵏ1 xᵏ⁺¹, lowest first."""
    return _coefficients(method, absolute=True)


def _coefficients(method: Tableau, *, absolute: bool) -> list[float]:
    A, b = _matrix(method)
    if absolute:
        A, b = np.abs(A), np.abs(b)
    ones, coefficients = np.ones(method.stages), [1.0]
    for _ in range(method.stages):
        coefficients.append(float(b @ ones))
        ones = A @ ones
    return coefficients


def largest(coefficients: list[float], damping: float, frequency: float) -> float:
    """max |R(−damping + iω)| over 0 ≤ ω ≤ frequency, of a real polynomial R."""
    if not math.isfinite(damping + frequency) or damping + frequency > 1e6:
        return math.inf
    # R along the line is a polynomial in ω; |R|² has its maximum at an end or where its derivative vanishes.
    line = np.polynomial.Polynomial([-damping, 1j])
    values = np.polynomial.Polynomial([0j])
    for coefficient in reversed(coefficients):
        values = values * line + coefficient
    square = np.polynomial.Polynomial((values * np.polynomial.Polynomial(values.coef.conj())).coef.real)
    inner = np.real(square.deriv().roots()) if square.degree() > 1 else np.zeros(0)
    omega = np.concatenate([np.clip(inner, 0.0, frequency), np.linspace(0.0, frequency, 257)])
    return float(np.abs(values(omega)).max()) * WIDER


def _horner(coefficients: list[float], x: float) -> float:
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _power(base: float, exponent: int) -> float:
    if base == 0 or not math.isfinite(base):
        return base
    return _exp(exponent * math.log(base)) * WIDER
