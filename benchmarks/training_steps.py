"""One training step of any method, ready to be repeated, and its cost beside a natural step's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from rich.progress import track
from torch import Tensor, nn
from training_written_out import WRITTEN_OUT

from verigrad import catalog
from verigrad.core.seeds import seeded
from verigrad.models.networks.resnet6n2 import ResNet6n2
from verigrad.training.trainer import initialised

Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row: a spec of the catalog, and the units that it cannot do without; None where nobody has counted them."""

    name: str
    kind: str
    spec: str
    units: int | None = None


NATURAL = Trial(name="natural", kind="objective", spec="natural", units=3)


@dataclass(kw_only=True)
class Bench:
    """What a trainer lends to an algorithm, with nothing but plain SGD behind it."""

    model: nn.Module
    module: nn.Module
    optimiser: torch.optim.Optimizer
    low: bool = False
    lr: float = 1e-3
    memory: dict[str, Tensor] = field(default_factory=dict)
    step: int = 1
    steps: int = 1000
    updates: int = 0

    def update(self) -> None:
        self.updates += 1
        self.optimiser.step()
        self.optimiser.zero_grad()

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False) if self.low else nullcontext()


@dataclass
class Passes:
    """Counts what a network does; `seen` is its logits' hook."""

    forwards: int = 0
    backwards: int = 0

    def seen(self, module: nn.Module, inputs: object, logits: Tensor) -> None:
        self.forwards += 1
        if logits.requires_grad:
            logits.register_hook(self.back)

    def back(self, gradient: Tensor) -> None:
        self.backwards += 1


def small() -> nn.Module:
    return ResNet6n2(blocks=2)


def step_of(
    trial: Trial, batch: int, make: Callable[[], nn.Module] = small, *, low: bool = False
) -> tuple[Step, Bench]:
    """A training step on a network of its own; `low` for forward passes in bfloat16."""
    model = initialised(make, 0).train()
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, 32, 32, generator=draw)
    y = torch.randint(10, (batch,), generator=draw)
    optimiser = torch.optim.SGD(model.parameters(), lr=Bench.lr, momentum=0.9)
    state = Bench(model=model, module=model, optimiser=optimiser, low=low)
    part = None if trial.kind == "bare" else catalog.build(trial.kind, trial.spec)

    def step() -> None:
        streams = seeded(0, "benchmark", range(batch))
        if trial.kind == "algorithm":
            part.step(state, x, y, generator=streams)
            return
        with state.precision():
            bare = part is None
            total = WRITTEN_OUT[trial.name](model, x, y) if bare else part(model, x, y, generator=streams).total
        total.backward()
        state.update()

    return step, state


@dataclass(frozen=True)
class Row:
    name: str
    spec: str
    ratio: float
    low: float
    high: float
    rounds: int
    floor: float | None
    forwards: int
    backwards: int
    updates: int
    natural_seconds: float


def seconds(work: Step) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def beside(work: Step, other: Step, rounds: int) -> tuple[list[float], list[float]]:
    """For each round the cost of `work` over the mean of those of `other` before and after it; and those of `other`."""
    ratios, others = [], [seconds(other)]
    for _ in range(rounds):
        ours = seconds(work)
        others.append(seconds(other))
        ratios.append(2 * ours / (others[-2] + others[-1]))
    return ratios, others


def measured(rows: list[Trial], batch: int, rounds: int) -> Iterator[Row]:
    natural, _ = step_of(NATURAL, batch)
    natural()
    for trial in track(rows, description="training steps"):
        step, state = step_of(trial, batch)
        passes = Passes()
        hook = state.module.register_forward_hook(passes.seen)
        step()
        hook.remove()
        updates = state.updates
        ratios, bare = beside(step, natural, rounds)
        yield Row(
            name=trial.name,
            spec=trial.spec,
            ratio=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            rounds=rounds,
            floor=None if trial.units is None else trial.units / 3,
            forwards=passes.forwards,
            backwards=passes.backwards,
            updates=updates,
            natural_seconds=statistics.median(bare),
        )
