"""What a training algorithm is: one step on one batch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from verigrad.core.seeds import SampleGenerator


class State(Protocol):
    """What the trainer lends to an algorithm for one batch.

    model: what a loss calls, in training mode; with several processes a wrapper that averages gradients over them.
    module: the bare network behind `model`, for attacks, for single layers and for reading weights.
    optimiser: over the weights of `module`.
    lr: the learning rate of this batch, as the schedule has it.
    memory: tensors that go from batch to batch, by name, empty at first; each process has its own, and they are in the
        checkpoint.
    step, steps: which batch this is, from 0, of how many in the whole training.
    """

    model: nn.Module
    module: nn.Module
    optimiser: torch.optim.Optimizer
    lr: float
    memory: dict[str, Tensor]
    step: int
    steps: int

    def update(self) -> None:
        """From the gradients in `.grad`: clips them if so told, steps the optimiser, clears them, follows the mean
        weights. Weights without a gradient stay."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Backward passes inside it leave the gradients of this process apart: nothing is averaged."""
        ...

    def precision(self) -> AbstractContextManager[None]:
        """The precision of forward passes: autocast where the recipe has it."""
        ...


class Algorithm(Protocol):
    """A training step on a batch: x (B, C, H, W) in [0, 1], y (B,), one random stream for each sample.

    It returns named scalars without graph, for records, as the parts of a `Loss`. An algorithm is a frozen dataclass:
    all that changes is in `state`.
    """

    def step(self, state: State, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> dict[str, Tensor]: ...
