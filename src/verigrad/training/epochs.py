"""What happens in an epoch and at its end; when it is written, and when all stops, is decided in `trainer.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.classifier import device_of
from verigrad.core.errors import BadInput
from verigrad.data.packed import packed, unpacked
from verigrad.training.batches import Batch, batches_of, epoch_batches, split
from verigrad.training.checkpoint import Epoch, Position
from verigrad.training.distributed import Processes
from verigrad.training.recipe import Recipe
from verigrad.training.running import Method, Running, own_randomness, take_step
from verigrad.training.watching import Watch, collapsed, is_best, validate


class Report(NamedTuple):
    """Sent after every epoch, in process 0.

    model: what would be kept now, in eval mode, to be read only. best: whether it is the best so far on the samples
    held out. collapsed: whether its robustness has just broken down (`watching.collapsed`).
    """

    epoch: Epoch
    model: nn.Module
    best: bool
    collapsed: bool


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run, ready to go.

    x, y: all the data, on the device; x may be packed. held_out, ids: places of the samples held out and trained on.
    each: batches in an epoch.
    """

    state: Running
    method: Method
    x: Tensor
    y: Tensor
    held_out: Tensor
    ids: Tensor
    each: int
    recipe: Recipe
    processes: Processes
    watch: Watch | None

    def batches(self, position: Position) -> Iterator[Batch]:
        """What is left of the present epoch."""
        epoch = len(position.history)
        first = position.steps - epoch * self.each
        return epoch_batches(self.ids, epoch, first, self.recipe, self.processes, self.x.device)

    def advance(self, batch: Batch, position: Position) -> None:
        """One step of the training, and its place in the sums."""
        recipe, state = self.recipe, self.state
        state.begin(batch.step, recipe.lr * recipe.schedule(batch.step / state.steps))
        images = unpacked(recipe.augment(self.x[batch.rows], generator=batch.changes))
        if recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        rank = (self.processes.rank,) if self.processes.rank else ()
        with own_randomness(self.x.device, recipe.seed, "step", batch.step, *rank):
            parts = take_step(state, self.method, images, self.y[batch.rows], batch.generator)
        for name, value in parts.items():
            before = position.sums.get(name, torch.zeros_like(value))
            position.sums[name] = before + value * len(batch.rows)
        position.steps = batch.step + 1

    def ends_epoch(self, position: Position) -> bool:
        """Whether the last batch of the present epoch has been taken."""
        return position.steps == (len(position.history) + 1) * self.each

    def so_far(self, position: Position) -> dict[str, float]:
        """Means of the parts in the present epoch, over what this process has seen of it."""
        done = position.steps - len(position.history) * self.each
        count = min(len(self.ids), done * self.recipe.batch) // self.processes.count
        return {name: float(value) / count for name, value in position.sums.items()}

    def check(self, position: Position) -> None:
        """Refuses what is not finite: BadInput."""
        self._means(position, 1)

    def end_epoch(self, position: Position, epoch_done: Callable[[Report], None] | None) -> None:
        """Means, accuracies on the samples held out, the best weights, and the report."""
        module, mean = self.state.module, self.state.mean
        count = min(len(self.ids), self.each * self.recipe.batch)
        parts = self._means(position, count - count % self.processes.count)
        self.processes.average_buffers(module)
        with mean.applied() if mean is not None else nullcontext():
            found = validate(
                module,
                self.x,
                self.y,
                self.held_out,
                self.ids,
                batch=self.recipe.batch,
                watch=self.watch,
                processes=self.processes,
            )
            epoch = Epoch(len(position.history) + 1, parts, found.clean, found.robust)
            best = is_best(found, position.history)
            if best:
                position.best_epoch = epoch.number
                position.best = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
            position.history.append(epoch)
            position.sums = {}
            if epoch_done is not None and self.processes.rank == 0:
                module.eval()
                epoch_done(Report(epoch, module, best, collapsed(position.history)))

    def _means(self, position: Position, count: int) -> dict[str, float]:
        sums = {name: self.processes.total(value.clone()) for name, value in position.sums.items()}
        parts = {name: float(value) / count for name, value in sums.items()}
        for name, value in parts.items():
            if not math.isfinite(value):
                number = len(position.history) + 1
                raise BadInput(f"The {name} is {value} after epoch {number}. Lower the 'lr' of {self.recipe.lr}.")
        return parts


def prepared(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    method: Method,
    recipe: Recipe,
    processes: Processes,
    watch: Watch | None,
) -> Run:
    """Brings model and data into the form in which they are trained, and makes the optimiser."""
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    device = device_of(model)
    held_out, ids = split(len(x), recipe)
    each = batches_of(len(ids), recipe, processes)
    float32 = bool(getattr(method, "needs_float32", False))
    return Run(
        state=Running(model, recipe, steps=recipe.epochs * each, processes=processes, float32=float32),
        method=method,
        x=packed(x).to(device),
        y=y.to(device),
        held_out=held_out,
        ids=ids,
        each=each,
        recipe=recipe,
        processes=processes,
        watch=watch,
    )
