"""The training loop. Same seed and same machine give the same weights, killed and resumed or not.

Everything random depends on (seed, what it is for, epoch or step, sample), never on the state of a running generator:
that is why a checkpoint needs no generator. PyTorch's global generator, from which dropout and such draw, is seeded for
each step inside a fork, and is afterwards what it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import derive_seed
from verigrad.training.checkpoint import Checkpoint, Epoch, Position
from verigrad.training.clock import Clock
from verigrad.training.distributed import ALONE, Processes
from verigrad.training.epochs import Report, prepared
from verigrad.training.identity import training_identity
from verigrad.training.recipe import Recipe
from verigrad.training.running import Method
from verigrad.training.watching import Watch


class Progress(NamedTuple):
    """Sent after every step.

    step, steps: steps done of steps to do. epoch: the last one that is complete. so_far: gives the means of the parts
    in the epoch after it; to be asked before the next step, it waits for the device.
    """

    step: int
    steps: int
    epoch: Epoch | None
    so_far: Callable[[], dict[str, float]]


class Trained(NamedTuple):
    """What came of a training.

    history: one entry for each epoch. validation_ids: int64, which samples were held out. best_epoch: the best on these
    by `watching.is_best`, and best: the weights and buffers of then; None and empty if none are held out. steps:
    batches done. stopped: whether the time limit ended it.
    """

    history: tuple[Epoch, ...]
    validation_ids: Tensor
    best_epoch: int | None
    best: dict[str, Tensor]
    steps: int
    stopped: bool


def initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A fresh model with weights drawn under a seed; the global generator is afterwards what it was before.

    make: builds a model on the CPU, e.g. `lambda: SmallConvNet(channels=8)`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "weights"))
        return make()


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    method: Method,
    recipe: Recipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    epoch_done: Callable[[Report], None] | None = None,
    checkpoint: str | Path | None = None,
    save_every: float | None = None,
    time_limit: float | None = None,
    watch: Watch | None = None,
    processes: Processes = ALONE,
) -> Trained:
    """Trains a model in place and leaves it in eval mode, with the last weights, or their mean if the recipe has one.

    Args:
        model: on the device where it is trained. The data are moved there, as uint8 where that loses nothing.
        x, y: (N, C, H, W) in [0, 1] and (N,): training data alone. `recipe.validation` of them are held out.
        method: an objective (a loss), or an algorithm (steps of its own). One with the attribute `needs_float32` is not
            run under autocast.
        recipe: the numbers.
        progress: called after every step.
        epoch_done: called after every epoch, before its state is written; after a kill perhaps twice for one epoch.
        checkpoint: a file that is written after each epoch. If it exists the training goes on from there.
        save_every: seconds after which it is written between epochs too; None for never.
        time_limit: seconds after which the training stops between two steps, written; None for no limit.
        watch: a quick attack after each epoch, on samples held out where there are any.
        processes: who takes part (`distributed.joined`); each gets the same arguments.

    Raises:
        BadInput: more samples to hold out than there are; a batch that the processes cannot share; a checkpoint that is
            damaged, or of another training, naming the difference; a loss that is not finite.
    """
    _check(len(x), recipe, processes)
    clock = Clock(save_every=save_every, time_limit=time_limit, processes=processes)
    identity = training_identity(model, x, y, method, recipe, processes) if checkpoint is not None else {}
    saved = Checkpoint(Path(checkpoint), identity, processes) if checkpoint is not None else None
    run = prepared(model, x, y, method, recipe, processes, watch)
    position = saved.resume(run.state) if saved is not None else Position()
    stopped = False
    while len(position.history) < recipe.epochs and not stopped:
        for batch in run.batches(position):
            run.advance(batch, position)
            if progress is not None:
                last = position.history[-1] if position.history else None
                progress(Progress(position.steps, run.state.steps, last, partial(run.so_far, position)))
            due = clock.due()
            stopped = due.stop
            if run.ends_epoch(position):
                run.end_epoch(position, epoch_done)
            elif due.save:
                run.check(position)
            else:
                continue
            if saved is not None:
                saved.save(run.state, position)
            clock.saved()
            if stopped:
                break
    done = len(position.history) == recipe.epochs
    if saved is not None and done:
        saved.finish()
    if run.state.mean is not None:
        run.state.mean.keep()
    model.eval()
    best = position.best_epoch, position.best
    return Trained(tuple(position.history), run.held_out, *best, position.steps, stopped and not done)


def _check(count: int, recipe: Recipe, processes: Processes) -> None:
    if recipe.validation >= count:
        raise BadInput(f"The 'validation' of {recipe.validation} samples leaves none of {count} to train on.")
    if recipe.batch % processes.count or count - recipe.validation < processes.count:
        raise BadInput(
            f"{processes.count} processes cannot share {count - recipe.validation} samples in batches of "
            f"{recipe.batch}. Give a 'batch' that {processes.count} divides."
        )
