"""Forward passes of a judge: the classifier left as it was found, without gradient, and repeatable."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from verigrad.core.classifier import device_of, left_as_found
from verigrad.core.seeds import derive_seed


@contextmanager
def fixed_draws(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global generators start at `seed` inside the block and are as before after it.

    Only classifiers that draw random numbers notice. All threads share these generators, so a block in any but the
    main thread leaves them alone: there such a classifier is not repeatable.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    accelerator = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if accelerator else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reach accelerators that are not ours
        if accelerator:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def look(model: nn.Module, batches: Iterable[Tensor], *, stream: str) -> list[Tensor]:
    """Logits (B, K) of each batch (B, C, H, W), on the processor; one forward pass a batch, each with the same draws.

    Args:
        stream: names the draws of a classifier that takes random numbers.
    """
    device, seed = device_of(model), derive_seed("look", stream)
    logits: list[Tensor] = []
    with left_as_found(model), torch.no_grad():
        for batch in batches:
            with fixed_draws(seed, device):
                logits.append(model(batch.to(device)).cpu())
    return logits
