"""What a classifier is, and how it is looked at without being changed.

A classifier is any `nn.Module` from images in [0, 1], shape (B, C, H, W), to logits (B, K); normalisation lives inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[nn.Module]:
    """Eval mode and frozen weights for the length of a block; mode, grad flags and buffers are put back after it."""
    modes = {module: module.training for module in model.modules()}
    flags = {weight: weight.requires_grad for weight in model.parameters()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        model.eval()
        for weight in flags:
            weight.requires_grad_(False)
        yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for weight, flag in flags.items():
            weight.requires_grad_(flag)
        for module, name, buffer, before in buffers:
            if not torch.equal(buffer, before):
                buffer.copy_(before)
            if getattr(module, name, None) is not buffer:
                setattr(module, name, buffer)


def batch_coupled(model: object) -> bool:
    """Whether a model says of itself that predictions depend on batch-mates (any part with `batch_coupled = True`)."""
    if bool(getattr(model, "batch_coupled", False)):
        return True
    return isinstance(model, nn.Module) and any(bool(getattr(part, "batch_coupled", False)) for part in model.modules())


class Coupled(nn.Module):
    """A classifier found to depend on batch-mates though no part of it says so. It computes what `model` does."""

    batch_coupled = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are, or its buffers; the processor if it has neither."""
    holder = next(model.parameters(), None)
    holder = next(model.buffers(), None) if holder is None else holder
    return torch.device("cpu") if holder is None else holder.device


def predict(model: nn.Module, x: Tensor, *, batch: int = 100) -> Tensor:
    """Logits (N, K) without gradient, where x is, in batches of `batch` in the order given.

    The model is left as it was found, and the batches are moved to where it is.
    """
    with left_as_found(model), torch.no_grad():
        device = device_of(model)
        return torch.cat([model(part.to(device)).to(x.device) for part in x.split(batch)])
