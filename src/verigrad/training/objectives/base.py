"""What a training objective is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator


class Loss(NamedTuple):
    """total: a scalar with the graph that training differentiates. parts: named scalars without graph, for records."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(Protocol):
    """A loss on a batch: model in training mode, x (B, C, H, W) in [0, 1], y (B,), one random stream for each sample.

    An objective is a frozen dataclass: equal fields and equal streams give equal losses.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Loss: ...


def check_smoothing(name: str, smoothing: float) -> None:
    """Refuses what is no share of a label: BadInput."""
    if not 0 <= smoothing < 1:
        raise BadInput(f"The 'smoothing' of {name} must be in [0, 1). Got {smoothing!r}. 0.1 is common.")


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The share of right predictions, a scalar without graph."""
    return (logits.detach().argmax(1) == y).float().mean()
