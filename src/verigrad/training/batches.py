"""Which samples make the batches of an epoch, and their random streams: functions of (seed, epoch, step, sample)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.seeds import SampleGenerator, derive_seed
from verigrad.training.distributed import Processes
from verigrad.training.recipe import Recipe


class Batch(NamedTuple):
    """step: from 0, over all epochs. rows: (B,) places in the data of this process's part.

    generator: for the method; changes: for the augmentation.
    """

    step: int
    rows: Tensor
    generator: SampleGenerator
    changes: SampleGenerator


def split(count: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Which samples are held out, and which are trained on; both in increasing order."""
    order = torch.randperm(count, generator=_cpu_generator(recipe.seed, "validation"))
    return order[: recipe.validation].sort().values, order[recipe.validation :].sort().values


def batches_of(count: int, recipe: Recipe, processes: Processes) -> int:
    """Batches in an epoch of so many samples. What cannot be shared equally by all processes is left out."""
    whole, rest = divmod(count, recipe.batch)
    return whole + (rest >= processes.count)


def epoch_batches(
    ids: Tensor, epoch: int, first: int, recipe: Recipe, processes: Processes, device: torch.device
) -> Iterator[Batch]:
    """This process's part of the batches of an epoch, from number `first` on.

    Everything is drawn and moved to the device before the first batch, so that no step waits for the host.
    """
    order = ids[torch.randperm(len(ids), generator=_cpu_generator(recipe.seed, "order", epoch))]
    count = batches_of(len(ids), recipe, processes)
    shares = [_share(rows, processes) for rows in order.split(recipe.batch)[:count]][first:]
    if not shares:
        return
    steps = range(epoch * count + first, (epoch + 1) * count)
    streams = [
        derive_seed(recipe.seed, f"train/{step}", row)
        for step, rows in zip(steps, shares, strict=True)
        for row in rows.tolist()
    ]
    rows = torch.cat(shares)
    changes = [derive_seed(recipe.seed, f"augment/{epoch}", row) for row in rows.tolist()]
    sizes = [len(share) for share in shares]
    parts = [part.to(device).split(sizes) for part in (rows, torch.tensor(streams), torch.tensor(changes))]
    for step, row, stream, change in zip(steps, *parts, strict=True):
        yield Batch(step, row, SampleGenerator(stream), SampleGenerator(change))


def _share(rows: Tensor, processes: Processes) -> Tensor:
    each = len(rows) // processes.count
    return rows[processes.rank * each : (processes.rank + 1) * each]


def _cpu_generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))
