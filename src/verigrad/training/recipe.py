"""What a training run is told besides model, data and objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.data.augment import Augment
from verigrad.training.schedule import Schedule, Steps


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training run: all that decides, besides model, data and method, what weights come out.

    Args:
        epochs: passes over the training part, from 1 up.
        batch: samples in a step of all processes together, from 1 up; the last batch of an epoch may be shorter.
        optimiser: "sgd" (with momentum), "adam" or "adamw" (Loshchilov & Hutter 2019).
        lr: the highest learning rate, positive.
        schedule: the factor on it.
        momentum: of sgd, in [0, 1).
        nesterov: whether sgd takes Nesterov's form of the momentum.
        weight_decay: L2 penalty in the gradient, from 0 up; with adamw it is apart from the gradient.
        clip: the longest gradient (L2 over all weights) that is taken as it is; None for no limit.
        mean_weights: decay of the moving average of the weights that is validated and kept, in [0, 1); None for none.
        precision: "float32", or "bfloat16" for forward passes under autocast.
        channels_last: whether weights and images lie in memory with the channels last.
        augment: random changes of the images.
        validation: samples held out of the training data to measure accuracy after each epoch, from 0 up.
        seed: of the order, the validation part, and everything that objective and model draw.
    """

    epochs: int = 20
    batch: int = 100
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.05
    schedule: Schedule = Steps()  # noqa: RUF009 (frozen)
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None
    mean_weights: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    augment: Augment = Augment()  # noqa: RUF009 (frozen)
    validation: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise BadInput(f"'epochs' and 'batch' of a Recipe must be at least 1. Got {self.epochs} and {self.batch}.")
        if self.optimiser not in ("sgd", "adam", "adamw"):
            raise BadInput(f"The 'optimiser' of a Recipe must be 'sgd', 'adam' or 'adamw'. Got {self.optimiser!r}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise BadInput(f"The 'lr' of a Recipe must be a positive number. Got {self.lr}.")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"The 'momentum' of a Recipe must be in [0, 1). Got {self.momentum}.")
        if self.nesterov and (self.momentum == 0 or self.optimiser != "sgd"):
            raise BadInput("'nesterov' of a Recipe needs sgd with a momentum above 0.")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise BadInput(f"The 'clip' of a Recipe must be a positive number, or None. Got {self.clip}.")
        if self.mean_weights is not None and not 0 <= self.mean_weights < 1:
            raise BadInput(f"'mean_weights' of a Recipe must be in [0, 1), or None. Got {self.mean_weights}.")
        if self.precision not in ("float32", "bfloat16"):
            raise BadInput(f"The 'precision' of a Recipe must be float32 or bfloat16. Got {self.precision!r}.")
        if self.weight_decay < 0 or self.validation < 0:
            raise BadInput(
                "'weight_decay' and 'validation' of a Recipe must not be negative. "
                f"Got {self.weight_decay} and {self.validation}."
            )

    def make_optimiser(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over all weights."""
        weights, decay = model.parameters(), self.weight_decay
        if self.optimiser == "adam":
            return torch.optim.Adam(weights, lr=self.lr, weight_decay=decay)
        if self.optimiser == "adamw":
            return torch.optim.AdamW(weights, lr=self.lr, weight_decay=decay)
        momentum, nesterov = self.momentum, self.nesterov
        return torch.optim.SGD(weights, lr=self.lr, momentum=momentum, nesterov=nesterov, weight_decay=decay)
