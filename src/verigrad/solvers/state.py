"""The state of a system: inside this room always a tuple of tensors, batch first."""

from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""Parts of any shapes (B, ...)."""

Field = Callable[[Tensor, State], State]
"""The right-hand side f(t, y), a part for each part of y; t is 0-d, or (B,) where each sample has its own time."""


def column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) in the dtype and on the device of `like`, for products with (B, ...)."""
    return values.to(like).reshape(-1, *[1] * (like.dim() - 1))


def take(y: State, rows: Tensor) -> State:
    """The given samples of each part; rows is an index (n,) on any device."""
    return tuple(part.index_select(0, rows.to(part.device)) for part in y)


def choose(mask: Tensor, yes: State, no: State) -> State:
    """Sample by sample `yes` where the mask holds, else `no`; mask is (B,), or 0-d for the whole batch."""
    if bool(mask.all()):
        return yes
    if not bool(mask.any()):
        return no
    return tuple(torch.where(column(mask, a).bool(), a, b) for a, b in zip(yes, no, strict=True))


def finite_rows(y: State) -> Tensor:
    """(B,) bool: which samples are finite in every part. One pass over the data, no scalar read."""
    finite = torch.ones(len(y[0]), dtype=torch.bool, device=y[0].device)
    for part in y:
        if part.numel():
            finite = (
                finite & torch.linalg.vector_norm(part.detach().reshape(len(part), -1), float("inf"), dim=1).isfinite()
            )
    return finite
