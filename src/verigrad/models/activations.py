"""The activations of the skew fields: strictly increasing ones alone, as Theorem 3.1 of Huang et al. 2020 asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.core.errors import BadInput

Activation = Literal["leaky_relu", "elu", "softplus", "tanh", "sigmoid", "identity"]

LEAK = 0.01  # the slope of nn.LeakyReLU where nothing is said


def leaky_relu(x: Tensor) -> Tensor:
    """max(x, 0.01 x)."""
    return F.leaky_relu(x, LEAK)


def identity(x: Tensor) -> Tensor:
    """x: the linear system, Eq. (4) of the paper."""
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": leaky_relu,
    "elu": F.elu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": identity,
}
"""By name. Softplus and sigmoid are positive everywhere, so under them the origin is no point of rest."""


def increasing(name: str) -> Callable[[Tensor], Tensor]:
    """The strictly increasing activation of that name.

    Raises:
        BadInput: for ReLU, and for what is not in the table.
    """
    if name == "relu":
        raise BadInput(
            "The 'activation' of a skew field must be strictly increasing, and ReLU is flat below 0, where Theorem 3.1 "
            "says nothing. Got 'relu'. Use leaky_relu."
        )
    if name not in ACTIVATIONS:
        raise BadInput(f"The 'activation' of a skew field must be one of {', '.join(ACTIVATIONS)}. Got {name!r}.")
    return ACTIVATIONS[name]
