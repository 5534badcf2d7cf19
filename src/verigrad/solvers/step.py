"""One explicit Runge-Kutta step."""

from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.solvers.combine import combine
from verigrad.solvers.stages import Stages
from verigrad.solvers.state import Field, State
from verigrad.solvers.tableau import Tableau


class Step(NamedTuple):
    """y1 = y + h Σ b_i k_i, and the stages k_1 … k_s."""

    y1: State
    stages: Stages


def clock(t: float | Tensor, like: Tensor) -> Tensor:
    """The time as the field sees it: in the dtype and on the device of the state, 0-d or (B,)."""
    if isinstance(t, float):
        return torch.full((), t, dtype=like.dtype, device=like.device)
    t = _plain(t)
    return t.to(like) if isinstance(t, Tensor) else clock(t, like)


def _plain(value: float | Tensor) -> float | Tensor:
    """A value of the whole batch without a graph as a float."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad:
        return float(value)
    return value


def step(
    field: Field, method: Tableau, y: State, k1: State, t: float | Tensor, h: float | Tensor, *, all_stages: bool
) -> Step:
    """From (t, y) by h, given k1 = f(t, y).

    t and h are floats, or float64 tensors, 0-d or (B,). Without `all_stages` a last stage that only serves the next
    step or the error estimate is not evaluated.
    """
    t, h = _plain(t), _plain(h)
    stages = Stages(y, h)
    stages.append(k1)
    y1 = y
    for c, row in zip(method.c[1:], method.a[1:], strict=True):
        y1 = stages.sum(row)
        if len(stages) == method.stages - 1 and method.last_is_first and not all_stages:
            break
        stages.append(field(clock(t + c * h, y[0]), y1))
    if not method.last_is_first:
        y1 = stages.sum(method.b)
    return Step(y1=y1, stages=stages)


def interpolated(method: Tableau, y: State, stages: Stages, h: float | Tensor, x: float | Tensor) -> State:
    """The quartic interpolant y(t + xh) of a step; x in (0, 1] of the shape of h."""
    h, x = _plain(h), _plain(x)
    # By Horner's rule, so that plain floats, which read no tensor, and tensors under a graph give the same bits.
    row = [x * (c1 + x * (c2 + x * (c3 + x * c4))) for c1, c2, c3, c4 in method.interpolant]
    if isinstance(h, float) and isinstance(x, float):
        return stages.sum(tuple(map(float, row)))
    return combine(y, stages, torch.stack([torch.as_tensor(h * w).reshape(-1) for w in row]))
