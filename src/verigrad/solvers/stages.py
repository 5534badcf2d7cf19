"""The stages of one step, and the sums y + h Σ_j a_ij k_j that a Runge-Kutta method takes of them.

With g_i the gradient of sum i, the gradient of k_j is h Σ_i a_ij g_i over the sums behind it, and that of y is Σ_i g_i.
Left to itself, autograd makes a tensor of each term and adds it to what there is. Here the g_i are gathered as they
arrive (`_Gathered`), and each stage gets its gradient from one chain of axpys. By then every g_i must have arrived; for
that, each sum hands a token on to the next one, and so autograd comes to a sum only after all later ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from verigrad.solvers.combine import chain, combine, scaled
from verigrad.solvers.state import State, column

Row = tuple[float, ...]

SMALL = 262_144
"""Entries of a state up to which a Python function for each sum costs more than it saves."""


class Stages(list[State]):
    """k_1, k_2, … of one step of length h from y; h is a float, or float64, 0-d or (B,)."""

    def __init__(self, y: State, h: float | Tensor) -> None:
        super().__init__()
        self.y, self.h = y, h
        self.gathered: _Gathered | None = None
        self._small = sum(part.numel() for part in y) <= SMALL
        if torch.is_grad_enabled() and not self._small and not _transformed():
            self.gathered = _Gathered()
        self._token: Tensor | None = None
        self._linked = 0

    def sum(self, row: Row) -> State:
        """y + h Σ_j row_j k_j over the stages so far; `row` has at least as many weights."""
        h = self.h
        if isinstance(h, Tensor) and h.dim() == 0:
            return combine(self.y, self, scaled(row, h))
        if self.gathered is None or (isinstance(h, Tensor) and h.requires_grad):
            return self.values(row)
        # What no sum has linked to the graph yet: the latest stages, and y before the first sum.
        new = [part for state in self[self._linked :] for part in state]
        self._token, *parts = _Sum.apply(self, row, self._token, *(self.y if self._token is None else ()), *new)
        self._linked = len(self)
        return tuple(parts)

    def values(self, row: Row) -> State:
        """The sum by ordinary operations; the same bits with and without a graph."""
        h = self.h
        if not isinstance(h, Tensor) or self._small:
            return combine(self.y, self, scaled(row, h))
        terms = [chain(None, ks, row) for ks in zip(*self, strict=True)]
        return tuple(torch.addcmul(part, term, column(h, part)) for part, term in zip(self.y, terms, strict=True))


def _transformed() -> bool:
    """Whether a compiler, `torch.func` or forward-mode differentiation looks on: they know nothing of the token."""
    return (
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


class _Gathered:
    """The gradients that have arrived at the sums of one step in one backward pass."""

    def __init__(self) -> None:
        self._task: int | None = None
        self._arrived: list[tuple[Row, Sequence[Tensor | None]]] = []

    def put(self, row: Row, gradients: Sequence[Tensor | None]) -> None:
        """The gradients of the parts of a sum; None is zero."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self.clear()
            self._task = task
            # A pass may end before the first sum; and gradients that carry a graph would keep it alive in a circle.
            torch.autograd.Variable._execution_engine.queue_callback(self.clear)  # pyright: ignore[reportAttributeAccessIssue]
        self._arrived.append((row, gradients))

    def of_y(self, part: int) -> Tensor | None:
        """Σ_i g_i."""
        found = [g for _, gs in self._arrived if (g := gs[part]) is not None]
        return chain(found[0], found[1:], [1.0] * len(found)) if found else None

    def of_stage(self, j: int, part: int, h: float | Tensor) -> Tensor | None:
        """h Σ_i a_ij g_i."""
        found = [(row[j], g) for row, gs in self._arrived if row[j] != 0.0 and (g := gs[part]) is not None]
        if not found:
            return None
        weights, gradients = zip(*found, strict=True)
        if isinstance(h, Tensor):
            total = chain(None, gradients, weights)
            return total.mul_(column(h, total))
        return chain(None, gradients, [h * a for a in weights])

    def clear(self) -> None:
        """Forget them."""
        self._task = None
        self._arrived.clear()


class _Sum(torch.autograd.Function):
    """A sum with the token: (stages, row, token, parts of y before the first sum, parts of new stages) → token, sum."""

    @staticmethod
    def forward(ctx: Any, stages: Stages, row: Row, token: Tensor | None, *new: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.gathered, ctx.row, ctx.h, ctx.stages, ctx.first = stages.gathered, row, stages.h, len(stages), token is None
        return torch.empty(()), *stages.values(row)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gathered, parts, needed = ctx.gathered, len(gradients) - 1, ctx.needs_input_grad[3:]
        gathered.put(ctx.row, gradients[1:])
        back: list[Tensor | None] = []
        for n, need in enumerate(needed):
            j = ctx.stages + (n - len(needed)) // parts
            if not need:
                back.append(None)
            else:
                back.append(gathered.of_y(n) if j < 0 else gathered.of_stage(j, n % parts, ctx.h))
        if ctx.first:
            gathered.clear()  # before the step in front of this one gathers its own
        return None, None, None, *back
