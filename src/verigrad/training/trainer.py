"""The training loop. Same seed and same machine give the same weights, killed and resumed or not.

Everything random depends on (seed, what it is for, epoch or step, sample), never on the state of a running generator:
that is why a checkpoint needs no generator. PyTorch's global generator, from which dropout and such draw, is seeded for
each step inside a fork, and is afterwards what it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.classifier import predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import derive_seed, seeded
from verigrad.training.checkpoint import Checkpoint, Epoch, training_identity
from verigrad.training.objectives.base import Objective
from verigrad.training.recipe import Recipe


class Progress(NamedTuple):
    """Sent after every step: steps done of steps to do, and the last epoch that is complete."""

    step: int
    steps: int
    epoch: Epoch | None


class Trained(NamedTuple):
    """history: one entry for each epoch. validation_ids: int64, which samples were held out."""

    history: tuple[Epoch, ...]
    validation_ids: Tensor


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
    objective: Objective,
    recipe: Recipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Trained:
    """Trains a model in place and leaves it in eval mode, with the weights of the last epoch.

    Args:
        model: on the device where it is trained.
        x, y: (N, C, H, W) in [0, 1] and (N,): training data alone. `recipe.validation` of them are held out.
        objective: the loss.
        recipe: the numbers.
        progress: called after every step.
        checkpoint: a file that is written after each epoch. If it exists the training goes on from there.

    Raises:
        BadInput: more samples to hold out than there are; a checkpoint of another training, naming the difference; a
            loss that is not finite.
    """
    if recipe.validation >= len(x):
        raise BadInput(f"The 'validation' of {recipe.validation} samples leaves none of {len(x)} to train on.")
    optimiser = recipe.make_optimiser(model)
    history: list[Epoch] = []
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(Path(checkpoint), training_identity(model, x, y, objective, recipe))
        history = saved.resume(model, optimiser)
    held_out, ids = _split(len(x), recipe)
    batches = -(-len(ids) // recipe.batch)
    for epoch in range(len(history), recipe.epochs):
        sums: dict[str, Tensor] = {}
        for i, rows in enumerate(_order(ids, epoch, recipe)):
            step = epoch * batches + i
            _set_rate(optimiser, recipe, step / (recipe.epochs * batches))
            parts = _step(model, optimiser, objective, x, y, rows, recipe.seed, step)
            for name, value in parts.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(rows)
            if progress is not None:
                progress(Progress(step + 1, recipe.epochs * batches, history[-1] if history else None))
        history.append(_summary(model, x, y, held_out, sums, epoch, recipe, len(ids)))
        if saved is not None:
            saved.save(model, optimiser, history)
    model.eval()
    return Trained(tuple(history), held_out)


def _split(count: int, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Which samples are held out, and which are trained on; both in increasing order."""
    order = torch.randperm(count, generator=_cpu_generator(recipe.seed, "validation"))
    return order[: recipe.validation].sort().values, order[recipe.validation :].sort().values


def _order(ids: Tensor, epoch: int, recipe: Recipe) -> tuple[Tensor, ...]:
    order = torch.randperm(len(ids), generator=_cpu_generator(recipe.seed, "order", epoch))
    return ids[order].split(recipe.batch)


def _cpu_generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*parts))


def _set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = recipe.lr * recipe.schedule(done)


def _step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    seed: int,
    step: int,
) -> dict[str, Tensor]:
    model.train()
    with _own_randomness(x.device, derive_seed(seed, "step", step)):
        generator = seeded(seed, f"train/{step}", rows.tolist(), device=x.device)
        rows = rows.to(x.device)
        loss = objective(model, x[rows], y[rows], generator=generator)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
    return loss.parts


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _summary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    held_out: Tensor,
    sums: dict[str, Tensor],
    epoch: int,
    recipe: Recipe,
    count: int,
) -> Epoch:
    parts = {name: float(value) / count for name, value in sums.items()}
    for name, value in parts.items():
        if not torch.isfinite(torch.tensor(value)):
            raise BadInput(f"The {name} is {value} after epoch {epoch + 1}. Lower the 'lr' of {recipe.lr}.")
    validation = None
    if len(held_out):
        rows = held_out.to(x.device)
        right = predict(model, x[rows], batch=recipe.batch).argmax(1) == y[rows]
        validation = float(right.float().mean())
    return Epoch(epoch + 1, parts, validation)
