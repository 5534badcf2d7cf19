"""What every evaluation of a model takes for granted, measured on its images. Nothing is printed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verigrad.core.classifier import device_of
from verigrad.models.behaviour import BEHAVIOUR, behaviour
from verigrad.models.fact import Fact as Fact
from verigrad.models.fact import fact
from verigrad.models.needed import NEEDED, needed

NAMES = (*NEEDED, *BEHAVIOUR)


def facts(model: nn.Module, x: Tensor, y: Tensor, *, batch: int = 100) -> tuple[Fact, ...]:
    """Every fact, in the order of `NAMES`; after a fatal one the others are not measured.

    The model and the global generator are left as they were found.

    Args:
        model: from images in [0, 1] to logits.
        x: (N, C, H, W) images; y: (N,) labels.
        batch: images shown together.
    """
    device = device_of(model)
    found: list[Fact] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for one in needed(model, x, y, batch=batch):
            found.append(one)
            if one.fatal:
                break
        else:
            found += behaviour(model, x, y, batch=batch)
    why = f"Not measured, since {found[-1].name!r} does not hold."
    return (*found, *(fact(name, None, None, why) for name in NAMES[len(found) :]))
