"""One step of training: what the trainer lends to an algorithm, and what it does with an objective."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from verigrad.core.classifier import device_of
from verigrad.core.seeds import SampleGenerator, derive_seed
from verigrad.training.algorithms.base import Algorithm
from verigrad.training.distributed import ALONE, Processes, without_averaging
from verigrad.training.mean_weights import MeanWeights
from verigrad.training.objectives.base import Objective
from verigrad.training.recipe import Recipe

Method = Objective | Algorithm


class Running:
    """The `State` of a training run (`algorithms/base.py` says what each field is).

    Args:
        module: the network, on its device.
        recipe: the numbers.
        steps: batches in the whole training.
        processes: who takes part.
        float32: whether the method needs full precision, whatever the recipe says.
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: Recipe,
        *,
        steps: int,
        processes: Processes = ALONE,
        float32: bool = False,
    ) -> None:
        self.module = module
        self.model = processes.replica(module)
        self.optimiser = recipe.make_optimiser(module)
        self.mean = MeanWeights(module, recipe.mean_weights) if recipe.mean_weights is not None else None
        self.memory: dict[str, Tensor] = {}
        self.lr = recipe.lr
        self.step = 0
        self.steps = steps
        self._clip = recipe.clip
        self._low = recipe.precision == "bfloat16" and not float32
        self._device = device_of(module)

    def update(self) -> None:
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.mean is not None:
            self.mean.follow()

    def alone(self) -> AbstractContextManager[None]:
        return without_averaging(self.model)

    @contextmanager
    def precision(self) -> Iterator[None]:
        # Without the cache a weight that was cast under no_grad is cast again, with its graph, for the loss.
        low = torch.autocast(self._device.type, dtype=torch.bfloat16, cache_enabled=False)
        with low if self._low else nullcontext():
            yield

    def begin(self, step: int, lr: float) -> None:
        """Makes ready for one batch."""
        self.step, self.lr = step, lr
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.model.train()


def take_step(state: Running, method: Method, x: Tensor, y: Tensor, generator: SampleGenerator) -> dict[str, Tensor]:
    """One batch: an algorithm's own step, or one gradient of an objective and one update. Returns the parts."""
    if callable(getattr(method, "step", None)):  # an objective may have a number of that name
        return cast(Algorithm, method).step(state, x, y, generator=generator)
    with state.precision():
        loss = cast(Objective, method)(state.model, x, y, generator=generator)
    loss.total.backward()
    state.update()
    return loss.parts


@contextmanager
def own_randomness(device: torch.device, *parts: object) -> Iterator[None]:
    """PyTorch's global generators, from which dropout and such draw, seeded for a block and put back after it."""
    devices = [device] if device.type == "cuda" else []
    seed = derive_seed(*parts)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
