"""y + Σ_j w_j k_j, the one kind of vector arithmetic that a Runge-Kutta method does.

Weights come in three kinds, and each has its cheapest form:
- floats (one step size for the batch, taken as a constant): a chain of in-place axpys, which saves no tensor for
  backward;
- a tensor (s, 1) (one step size for the batch, differentiated): the same chain, with ∂/∂w_j = ⟨gradient, k_j⟩ added
  by hand, so that the values are bit for bit those of the first kind;
- a tensor (s, B) (own step sizes): the weights are broadcast over each sample.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from verigrad.solvers.state import State, column

Weights = tuple[float, ...] | Tensor


def scaled(row: Sequence[float], h: float | Tensor) -> Weights:
    """h · row; floats where one constant h serves the whole batch, else a float64 tensor (s, rows of h)."""
    if not isinstance(h, Tensor):
        return tuple(h * a for a in row)
    if h.numel() == 1 and not h.requires_grad:
        return scaled(row, float(h))
    return torch.tensor(row, dtype=torch.float64)[:, None] * h.reshape(1, -1)


def combine(y: State, stages: Sequence[State], weights: Weights) -> State:
    """y + Σ_j w_j k_j for each part. `stages` may be longer than `weights`; stages of weight zero cost nothing."""
    return tuple(_combine(part, [k[i] for k in stages], weights) for i, part in enumerate(y))


def _combine(y: Tensor, ks: Sequence[Tensor], weights: Weights) -> Tensor:
    if isinstance(weights, tuple):
        return chain(y, ks, weights)
    ks = ks[: len(weights)]
    if weights.shape[1] == 1:
        return _SharedWeights.apply(weights.reshape(-1), y, *ks)  # pyright: ignore[reportReturnType]
    weights = weights.to(y)
    for k, w in zip(ks, weights, strict=True):
        y = torch.addcmul(y, k, column(w, y))
    return y


def chain(y: Tensor | None, ks: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """y + Σ_j w_j k_j, or without y, by axpys onto one new tensor."""
    terms = [(k, w) for k, w in zip(ks, weights, strict=False) if w != 0.0]
    if not terms and y is not None:
        return y
    (k, w), *terms = terms
    out = k * w if y is None else torch.add(y, k, alpha=w)
    for k, w in terms:
        out.add_(k, alpha=w)
    return out


class _SharedWeights(torch.autograd.Function):
    """The float chain with a gradient for the weights: ∂/∂w_j = ⟨g, k_j⟩, ∂/∂k_j = w_j g, ∂/∂y = g."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, y: Tensor, *ks: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *ks)
        return chain(y, ks, weights.tolist())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        weights, *ks = ctx.saved_tensors
        by_weight = torch.stack([(gradient * k).sum().to(weights) for k in ks])
        return by_weight, gradient, *(gradient * w.to(gradient) for w in weights)
