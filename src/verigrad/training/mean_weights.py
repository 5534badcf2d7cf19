"""The exponential moving average of weights (Polyak & Juditsky 1992; in adversarial training Rebuffi et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MeanWeights:
    """mean ← d_t · mean + (1 - d_t) · weight after each update t = 1, 2, …, with d_t = min(decay, (1 + t)/(10 + t)).

    The growing decay (as in TensorFlow's ExponentialMovingAverage) lets the first weights be forgotten soon. Buffers
    are not averaged: the mean network has those of the trained one.

    Args:
        module: what is trained.
        decay: in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = dict(module.named_parameters())
        self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """One update."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        means: list[Tensor] = [*self.means.values()]
        weights: list[Tensor] = [*self.weights.values()]
        torch._foreach_lerp_(means, weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def load(self, means: dict[str, Tensor], updates: int) -> None:
        """Goes on from means that were saved."""
        self.updates = updates
        for name, mean in self.means.items():
            mean.copy_(means[name])

    @torch.no_grad()
    def keep(self) -> None:
        """Puts the means into the module for good."""
        for name, weight in self.weights.items():
            weight.copy_(self.means[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the means as weights for the length of a block."""
        before = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.keep()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(before[name])
