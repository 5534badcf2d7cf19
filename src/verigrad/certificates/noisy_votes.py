"""How a classifier votes on noisy copies of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from verigrad.core.classifier import batch_coupled, device_of
from verigrad.core.errors import BadInput

Precision = Literal["model", "bf16"]
# Noisy copies of one image that are drawn at once. A batch holds whole blocks, of one image or of several.
BLOCK = 20


class NoisyVotes:
    """Votes on x + N(0, sigma²), in pixels of [0, 1] and not clipped to the box, with a stream of noise for each image.

    A stream is drawn in blocks of fixed size on the processor, wherever the model is: neither batch size nor
    batch-mates nor device change it, and only the rounding of the model can change a vote. `SampleGenerator` seeds the
    streams but does not draw them: its hash takes some twenty times as long as torch's generator. Votes are counted
    where the model is, by a scatter over mixed batches; nothing waits for the device before a call ends.

    Use it inside `left_as_found`.

    Args:
        x: (N, C, H, W) where the model is.
        sigma: standard deviation of the noise.
        seeds: one for each image.
        batch: noisy images in one forward pass; 1 where predictions depend on batch-mates.
        dtype: "model" computes as the model does, "bf16" under autocast to bfloat16.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, *, sigma: float, seeds: Sequence[int], batch: int, dtype: Precision
    ) -> None:
        self.model, self.x, self.sigma, self.dtype = model, x, sigma, dtype
        self.batch = 1 if batch_coupled(model) else batch
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def more(self, rows: Sequence[int], draws: int) -> Tensor:
        """Counts (R, K + 1), int64, of the next draws of some images; the last column is logits that are not finite.

        Draws that are no multiple of 20 use up, and cost, their last block whole.
        """
        blocks = math.ceil(draws / BLOCK)
        owners = [row for row in rows for _ in range(blocks)]
        images = torch.tensor(rows, device=self.x.device)
        counts: Tensor | None = None
        size = max(1, self.batch // BLOCK)
        for first in range(0, len(owners), size):
            streams = owners[first : first + size]
            # Places of the noisy images in one long row: of each image in turn, `blocks` blocks.
            place = torch.arange(first * BLOCK, (first + len(streams)) * BLOCK, device=self.x.device)
            owner, number = place // (blocks * BLOCK), place % (blocks * BLOCK)
            noisy = self._noise(streams).add_(self.x[images[owner[::BLOCK]]][:, None]).flatten(0, 1)
            vote, classes = self._vote(noisy)
            if counts is None:
                counts = torch.zeros(len(rows) * (classes + 1), dtype=torch.int64, device=self.x.device)
            counts.scatter_add_(0, owner * (classes + 1) + vote, (number < draws).long())
        assert counts is not None, "votes are asked for at least one image and one draw"
        return counts.reshape(len(rows), -1)

    def _noise(self, owners: Sequence[int]) -> Tensor:
        """(G, BLOCK, C, H, W) where x is: the next block of each stream."""
        # Pinned memory is copied while the device computes; torch keeps it until the copy is done.
        shape = (len(owners), BLOCK, *self.x.shape[1:])
        drawn = torch.empty(shape, dtype=self.x.dtype, pin_memory=self.x.device.type == "cuda")
        for block, row in zip(drawn, owners, strict=True):
            block.normal_(0.0, self.sigma, generator=self.streams[row])
        return drawn.to(self.x.device, non_blocking=True)

    def _vote(self, noisy: Tensor) -> tuple[Tensor, int]:
        """The class (B,) of each noisy image, K where its logits are not finite; and K."""
        with torch.no_grad(), self._precision():
            logits = torch.cat([self.model(part) for part in noisy.split(self.batch)])
        classes = logits.shape[1]
        return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), classes), classes

    def _precision(self) -> AbstractContextManager[object]:
        if self.dtype == "model":
            return nullcontext()
        return torch.autocast(device_of(self.model).type, dtype=torch.bfloat16)


def check_noise(name: str, *, sigma: float, alpha: float, dtype: str, **counts: int) -> None:
    """Refuses a sigma, an alpha, a dtype or counts that mean nothing.

    Raises:
        BadInput: naming the setting.
    """
    if not 0 < sigma < math.inf:
        raise BadInput(
            f"The 'sigma' of {name} must be a positive number, in pixels of [0, 1]. Got {sigma}. Did you mean 0.25?"
        )
    if not 0 < alpha < 1:
        raise BadInput(f"The 'alpha' of {name} must lie in (0, 1). Got {alpha}. Did you mean 0.001?")
    if dtype not in get_args(Precision):
        raise BadInput(f"The 'dtype' of {name} must be one of {', '.join(get_args(Precision))}. Got {dtype!r}.")
    for key, count in counts.items():
        if count < 1:
            raise BadInput(f"The {key!r} of {name} must be a whole number from 1 up. Got {count}.")
