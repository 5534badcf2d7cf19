"""What a training run is told besides model, data and objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.training.schedule import Schedule, Steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training run. There is no augmentation.

    Args:
        epochs: passes over the training part, from 1 up.
        batch: samples in a step, from 1 up; the last batch of an epoch may be shorter.
        optimiser: "sgd" (with momentum) or "adam".
        lr: the highest learning rate, positive.
        schedule: the factor on it.
        momentum: of sgd, in [0, 1).
        weight_decay: L2 penalty in the gradient, from 0 up.
        validation: samples held out of the training data to measure accuracy after each epoch, from 0 up.
        seed: of the order, the validation part, and everything that objective and model draw.
    """

    epochs: int = 20
    batch: int = 100
    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    schedule: Schedule = Steps()  # noqa: RUF009 (frozen)
    momentum: float = 0.9
    weight_decay: float = 0.0
    validation: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise BadInput(f"'epochs' and 'batch' of a Recipe must be at least 1. Got {self.epochs} and {self.batch}.")
        if self.optimiser not in ("sgd", "adam"):
            raise BadInput(f"The 'optimiser' of a Recipe must be 'sgd' or 'adam'. Got {self.optimiser!r}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"The 'lr' of a Recipe must be a positive number. Got {self.lr}.")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"The 'momentum' of a Recipe must be in [0, 1). Got {self.momentum}.")
        if self.weight_decay < 0 or self.validation < 0:
            raise BadInput(
                "'weight_decay' and 'validation' of a Recipe must not be negative. "
                f"Got {self.weight_decay} and {self.validation}."
            )

    def make_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over all weights."""
        if self.optimiser == "adam":
            return torch.optim.Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
