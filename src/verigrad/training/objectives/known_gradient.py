"""A scalar whose gradient by the weights was computed beforehand, as part of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return None, *(upstream[0] * gradient for gradient in gradients), *(None for _ in gradients)


def with_gradients(value: Tensor, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The scalar `value`, of which a backward pass says that its gradient by each of `weights` is the one given."""
    return _Known.apply(value.detach(), *weights, *(gradient.detach() for gradient in gradients))  # pyright: ignore
