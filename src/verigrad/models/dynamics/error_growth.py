"""How an error in the start grows step by step, against the bounds of Chu, Wei & Zhao 2020 (arXiv 2012.02452).

    e_n = z_n − y_n,   |e_n| ≤ (1 + hK)^n |e_0| ≤ e^{(b − t0) K} |e_0|        (section 3, Eq. 10, 11, Euler's method)

where K is a Lipschitz constant of f. Here K is measured: the largest ‖J‖₂ found at the states of both walks and halfway
between them. That is a lower estimate of the constant, not a certificate, so an error above the bound is possible, and
an error below it certifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.dynamics.jacobian import Derivative, operator_norm
from verigrad.models.dynamics.stability import norms
from verigrad.models.dynamics.trajectory import Trajectory, hopping
from verigrad.solvers.state import State
from verigrad.solvers.tableau import Tableau


class ErrorGrowth(NamedTuple):
    """All float64 on the CPU; (B, n + 1) unless said otherwise.

    t: the accepted times.
    error: |z_n − y_n|.
    lipschitz: (B,), the measured lower estimate of K.
    step_bound: |e_0| times the product over the steps of the Lipschitz constant that K gives the step: 1 + hK for
        Euler's method, where it is (1 + hK)^n.
    exponential_bound: e^{(t_n − t0) K} |e_0|. It bounds the flow, and Euler's method; a method with negative weights
        need not keep it.
    """

    t: Tensor
    error: Tensor
    lipschitz: Tensor
    step_bound: Tensor
    exponential_bound: Tensor


def error_growth(path: Trajectory, z0: Tensor | State, *, iterations: int = 20) -> ErrorGrowth:
    """The error |z_n − y_n| of a perturbed start along the steps of an unperturbed walk.

    Both take the steps of `path`, as in the paper's Eq. (2) and (4), whose h are equal. A solver that is free to choose
    takes others for z.

    Args:
        path: the walk of y.
        z0: the perturbed start, in the form of y's.
        iterations: of Lanczos, for each ‖J‖₂.

    Raises:
        BadInput: z0 has another form than y.
    """
    z = (z0,) if isinstance(z0, Tensor) else tuple(z0)
    y = path.y[0]
    if len(z) != len(y) or any(a.shape != b.shape for a, b in zip(z, y, strict=True)):
        want, got = ([tuple(part.shape) for part in s] for s in (y, z))
        raise BadInput(f"The perturbed start must have the form of the walk's, {want}. Got {got}.")
    with torch.no_grad():
        other = [z, *(after for after, _ in hopping(path.field, path.method, path.carries, path.hops, z))]
    K = torch.zeros(len(y[0]), dtype=torch.float64)
    for i, (a, b) in enumerate(zip(path.y, other, strict=True)):
        for point in (a, b, _halfway(a, b)):
            J = Derivative(field=path.field, t=path.time(i), y=point)
            K = torch.maximum(K, operator_norm(J, iterations=iterations).value)
    error = torch.stack([norms(_minus(b, a)) for a, b in zip(path.y, other, strict=True)], 1)
    factors = [torch.ones_like(K)]
    for hop in path.hops:
        h = torch.as_tensor(hop.h).abs().expand(len(K))
        end_at = 1.0 if hop.end_at is None else torch.as_tensor(hop.end_at)
        factors.append(step_lipschitz(path.method, h, K, end_at))
    step_bound = error[:, :1] * torch.stack(factors, 1).cumprod(1)
    past = (path.t - path.t[:, :1]).abs()
    return ErrorGrowth(path.t, error, K, step_bound, error[:, :1] * torch.exp(past * K[:, None]))


def step_lipschitz(method: Tableau, h: Tensor, K: Tensor, end_at: float | Tensor = 1.0) -> Tensor:
    """A Lipschitz constant of one step of length h of a method, for a right-hand side of Lipschitz constant K, (B,).

        L_i = K (1 + h Σ_j |a_ij| L_j),     1 + h Σ_i |b_i| L_i

    for stages k_i. This is what Theorem 3.2 leaves as a condition on its F. Where the end is read off at a part
    `end_at` of the step, the weights are those of the interpolant.
    """
    stages: list[Tensor] = []
    for row in method.a:
        stages.append(K * (1 + h * sum((abs(a) * L for a, L in zip(row, stages, strict=True)), torch.zeros_like(K))))
    whole = sum((abs(b) * L for b, L in zip(method.b, stages, strict=True)), torch.zeros_like(K))
    x = torch.as_tensor(end_at, dtype=torch.float64).expand(len(K))
    if bool((x < 1).any()):
        weights = [x * (c1 + x * (c2 + x * (c3 + x * c4))) for c1, c2, c3, c4 in method.interpolant]
        inside = sum((w.abs() * L for w, L in zip(weights, stages, strict=True)), torch.zeros_like(K))
        whole = torch.where(x < 1, inside, whole)
    return 1 + h * whole


def residual_error_growth(
    blocks: Sequence[Callable[[Tensor], Tensor]], y: Tensor, z: Tensor, *, iterations: int = 20
) -> ErrorGrowth:
    """The same for a residual network: blocks y ↦ y + hf(y), each a step of Euler's method, with hK = ‖D(block) − I‖.

    Args:
        blocks: in order; each gives the shape that it takes, and treats samples apart.
        y, z: (B, ...) inputs of the first block.
        iterations: of Lanczos, for each norm.

    Returns:
        With t the number of blocks passed, `lipschitz` the largest hK of a block, and for both bounds products over the
        blocks: of 1 + hK and of e^{hK}.

    Raises:
        BadInput: z or a block's output has another shape than y.
    """
    states = [(y, z)]
    for block in blocks:
        with torch.no_grad():
            states.append((block(states[-1][0]), block(states[-1][1])))
    shapes = [tuple(part.shape) for pair in states for part in pair]
    if len(set(shapes)) != 1:
        raise BadInput(f"Blocks y + hf(y) keep the shape of their input, {shapes[0]}. Got {shapes}.")
    hK = [torch.zeros(len(y), dtype=torch.float64)]
    for block, ((a, b), _) in zip(blocks, pairwise(states), strict=True):

        def residual(t: Tensor, state: State, block=block) -> State:
            del t  # a block has no clock
            return (block(state[0]) - state[0],)

        points = [Derivative(field=residual, t=0.0, y=(point,)) for point in (a, b, (a + b) / 2)]
        hK.append(torch.stack([operator_norm(J, iterations=iterations).value for J in points]).amax(0))
    steps = torch.stack(hK, 1)
    error = torch.stack([norms((b - a,)) for a, b in states], 1)
    t = torch.arange(len(states), dtype=torch.float64).expand_as(error)
    bounds = (error[:, :1] * (1 + steps).cumprod(1), error[:, :1] * steps.cumsum(1).exp())
    return ErrorGrowth(t, error, steps.amax(1), *bounds)


def _minus(a: State, b: State) -> State:
    return tuple(p - q for p, q in zip(a, b, strict=True))


def _halfway(a: State, b: State) -> State:
    return tuple((p + q) / 2 for p, q in zip(a, b, strict=True))
