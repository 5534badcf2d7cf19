"""The continuous adjoint method.

With a(t) = ∂L/∂y(t), going back from t1 to t0 (Chen et al. 2018, Algorithm 1),

    dy/dt = f,   da/dt = −aᵀ ∂f/∂y,   dg/dt = −aᵀ ∂f/∂θ,   a(t1) = ∂L/∂y(t1),   g(t1) = 0

so that ∂L/∂y0 = a(t0) and ∂L/∂θ = g(t0). y is solved anew on the way back, from the end that the solve forwards
reached. Only the samples that reached it go back; of the others y(t1) is not known, nor what follows from it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verigrad.core.errors import VerigradError
from verigrad.solvers.solution import Solution, Status
from verigrad.solvers.state import Field, State, take

Integrate = Callable[[Field, State], Solution]


class Adjoined(NamedTuple):
    """What the method needs: the field, its parameters, the solve forwards, and the solve back of the larger state.

    as_one: whether the solve back ends for all samples together, so that its failure leaves no gradient of any.
    """

    field: Field
    parameters: tuple[Tensor, ...]
    forwards: Integrate
    backwards: Integrate
    as_one: bool


def adjoint_solve(task: Adjoined, y0: State) -> Solution:
    """The solution forwards, whose gradient is that of the adjoint equation."""
    solved: list[Solution] = []
    y1 = _Adjoint.apply(task, solved, len(y0), *y0, *task.parameters)
    return solved[0]._replace(y1=y1)


def _augmented(task: Adjoined, parts: int) -> Field:
    """The right-hand side of (y, a, g), where g holds each parameter's gradient as one sample."""

    def field(t: Tensor, state: State) -> State:
        with torch.enable_grad():
            y = tuple(part.detach().requires_grad_() for part in state[:parts])
            k = task.field(t, y)
            pulled = torch.autograd.grad(
                k, (*y, *task.parameters), state[parts : 2 * parts], allow_unused=True, materialize_grads=True
            )
        by_parameter = (p.reshape(1, -1) for p in pulled[parts:])
        return (*(part.detach() for part in k), *(-a for a in pulled[:parts]), *(-p for p in by_parameter))

    return field


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: Adjoined, solved: list[Solution], parts: int, *tensors: Tensor) -> State:
        with torch.no_grad():
            solution = task.forwards(task.field, tensors[:parts])
        solved.append(solution)
        ctx.task, ctx.parts, ctx.done = task, parts, solution.status == int(Status.DONE)
        y1 = tuple(part.clone() for part in solution.y1)
        ctx.save_for_backward(*y1)
        return y1

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise VerigradError("Adjoint has no second derivatives (create_graph=True). Use Direct.")
        if bool(ctx.done.all()):
            return (None, None, None, *_back(ctx.task, ctx.saved_tensors, gradients))
        rows = ctx.done.nonzero()[:, 0]
        back = _back(ctx.task, take(ctx.saved_tensors, rows), take(gradients, rows))
        lost = (~ctx.done).nonzero()[:, 0]
        asked = torch.stack([(g.reshape(len(g), -1) != 0).any(1).cpu() for g in take(gradients, lost)]).any(0)
        nan = float("nan")
        by_state = tuple(
            torch.zeros_like(g).index_copy(0, rows.to(g.device), b).index_fill(0, lost[asked].to(g.device), nan)
            for g, b in zip(gradients, back, strict=False)
        )
        by_parameter = back[ctx.parts :]
        if bool(asked.any()):
            by_parameter = tuple(torch.full_like(g, nan) for g in by_parameter)
        return (None, None, None, *by_state, *by_parameter)


def _back(task: Adjoined, y1: State, gradients: State) -> State:
    """∂L/∂y0 of the given samples, and ∂L/∂θ."""
    parts = len(y1)
    zeros = tuple(p.new_zeros(1, p.numel()) for p in task.parameters)
    if not len(y1[0]):
        return (*gradients, *(z.reshape(p.shape) for z, p in zip(zeros, task.parameters, strict=True)))
    back = task.backwards(_augmented(task, parts), (*y1, *gradients, *zeros))
    state = back.y1
    if task.as_one and bool((back.status != int(Status.DONE)).any()):
        state = tuple(torch.full_like(part, float("nan")) for part in state)
    by_parameter = (g.reshape(p.shape) for g, p in zip(state[2 * parts :], task.parameters, strict=True))
    return (*state[parts : 2 * parts], *by_parameter)
