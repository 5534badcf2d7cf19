"""The contract that every algorithm of the catalog keeps, and algorithms that break it, one promise each.

A promise is a function that raises AssertionError. `test_promises` runs all of them on all algorithms;
`test_control_fails` runs each on an algorithm made to break it, so that no promise is empty.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_objectives import N, Net, batch, streams
from torch import Tensor

from verigrad.catalog import build, describe, entries
from verigrad.core.seeds import SampleGenerator
from verigrad.training.algorithms.base import Algorithm


@dataclass(frozen=True, kw_only=True)
class Case:
    """One algorithm as a spec, the passes and updates that it states for a batch, and whether it draws."""

    spec: str
    passes: int
    updates: int
    draws: bool = False

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]


CASES = (
    Case(spec="free:threat=linf(eps=0.1)", passes=8, updates=8),
    Case(spec="free:threat=l2(eps=0.5),replays=3", passes=3, updates=3),
    Case(spec="yopo:threat=linf(eps=0.1)", passes=5, updates=1, draws=True),
    Case(spec="yopo:threat=linf(eps=0.1),passes=2,collapse=false", passes=2, updates=1, draws=True),
    Case(spec="yopo:threat=l2(eps=0.5),passes=2", passes=2, updates=1, draws=True),
    Case(spec="successive-approximations", passes=1, updates=1),
    Case(spec="successive-approximations:momentum=0.9,every=1", passes=1, updates=1),
    Case(spec="successive-approximations:norms=free,beta=3", passes=1, updates=1),
    Case(
        spec="successive-approximations:objective=fgsm-adversarial(threat=linf(eps=0.1))",
        passes=2,
        updates=1,
        draws=True,
    ),
)


class State:
    """What a trainer lends, over SGD with momentum."""

    def __init__(self, model: Net) -> None:
        self.model = self.module = model.train()
        self.optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.lr = 0.05
        self.memory: dict[str, Tensor] = {}
        self.step, self.steps, self.updates = 0, 100, 0

    def update(self) -> None:
        self.updates += 1
        self.optimiser.step()
        self.optimiser.zero_grad()

    def alone(self):
        return nullcontext()

    def precision(self):
        return nullcontext()


def take(algorithm: Algorithm, state: State | None = None, rows: Tensor | None = None, unit: str = "unit") -> State:
    """One step, on these samples of the batch; the parts are kept as `parts`."""
    state = state or State(Net())
    rows = torch.arange(N) if rows is None else rows
    x, y = batch()
    state.parts = algorithm.step(state, x[rows], y[rows], generator=streams(unit)[rows])  # type: ignore[attr-defined]
    state.step += 1
    return state


def weights(state: State) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in state.module.parameters()])


def tells_finite_scalars_without_graph(algorithm: Algorithm, case: Case) -> None:
    parts = take(algorithm).parts  # type: ignore[attr-defined]
    assert {"cross_entropy", "accuracy"} <= parts.keys()
    for part in parts.values():
        assert part.shape == ()
        assert not part.requires_grad
        assert torch.isfinite(part)


def trains_every_weight(algorithm: Algorithm, case: Case) -> None:
    state = take(algorithm)
    for (name, after), before in zip(state.module.named_parameters(), Net().parameters(), strict=True):
        assert torch.isfinite(after).all(), name
        # Batch norm cancels the bias before it.
        assert (after - before).norm() > 1e-6 or name == "conv.bias", name


def learns(algorithm: Algorithm, case: Case) -> None:
    state = State(Net())
    losses = [take(algorithm, state).parts["cross_entropy"].item() for _ in range(30)]  # type: ignore[attr-defined]
    assert losses[-1] < 0.9 * losses[0]


def is_decided_by_its_streams(algorithm: Algorithm, case: Case) -> None:
    assert torch.equal(weights(take(algorithm)), weights(take(algorithm)))
    assert torch.equal(weights(take(algorithm)), weights(take(algorithm, unit="other"))) != case.draws


def touches_no_global_generator(algorithm: Algorithm, case: Case) -> None:
    state = State(Net())
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    take(algorithm, state)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


def leaves_all_but_weights_as_it_was(algorithm: Algorithm, case: Case) -> None:
    state = State(Net())
    state.module.head.bias.requires_grad_(False)
    frozen = state.module.head.bias.clone()
    x, y = batch()
    algorithm.step(state, x, y, generator=streams())
    assert all(module.training for module in state.module.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in state.module.modules())
    assert [name for name, weight in state.module.named_parameters() if not weight.requires_grad] == ["head.bias"]
    assert torch.equal(state.module.head.bias, frozen)
    assert all(weight.grad is None for weight in state.module.parameters())
    assert torch.equal(x, batch()[0])
    assert not x.requires_grad


def works_on_one_image(algorithm: Algorithm, case: Case) -> None:
    state = take(algorithm, rows=torch.tensor([3]))
    assert torch.isfinite(weights(state)).all()


def does_not_depend_on_order(algorithm: Algorithm, case: Case) -> None:
    straight, shuffled = take(algorithm), take(algorithm, rows=torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]))
    moved = (weights(straight) - weights(State(Net()))).norm()
    assert (weights(straight) - weights(shuffled)).norm() <= 1e-6 * moved


def makes_the_passes_and_updates_that_it_states(algorithm: Algorithm, case: Case) -> None:
    state = take(algorithm)
    assert (state.module.backwards, state.updates) == (case.passes, case.updates)


def goes_on_from_memory(algorithm: Algorithm, case: Case) -> None:
    """Weights, buffers, optimiser, memory and place are all that a step depends on."""
    whole = State(Net())
    take(algorithm, take(algorithm, whole))
    again = State(Net())
    saved = whole.module.state_dict(), whole.optimiser.state_dict(), whole.memory
    model, optimiser, memory = copy.deepcopy(saved)
    again.module.load_state_dict(model)
    again.optimiser.load_state_dict(optimiser)
    again.memory.update(memory)
    again.step = whole.step
    assert torch.equal(weights(take(algorithm, whole)), weights(take(copy.deepcopy(algorithm), again)))


def is_what_its_spec_says(algorithm: Algorithm, case: Case) -> None:
    assert build("algorithm", describe(algorithm)) == algorithm
    with pytest.raises(AttributeError):
        algorithm.threat = 1  # type: ignore[attr-defined]


PROMISES: tuple[Callable[[Algorithm, Case], None], ...] = (
    tells_finite_scalars_without_graph,
    trains_every_weight,
    learns,
    is_decided_by_its_streams,
    touches_no_global_generator,
    leaves_all_but_weights_as_it_was,
    works_on_one_image,
    does_not_depend_on_order,
    makes_the_passes_and_updates_that_it_states,
    goes_on_from_memory,
    is_what_its_spec_says,
)


def test_every_algorithm_of_the_catalog_is_here() -> None:
    assert {entry.name for entry in entries("algorithm")} == {case.name for case in CASES}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_promises(case: Case, promise: Callable[[Algorithm, Case], None]) -> None:
    promise(build("algorithm", case.spec), case)


# Controls: each breaks one promise


class Plain:
    """Natural training, with places for faults."""

    def step(self, state, x, y, *, generator: SampleGenerator) -> dict[str, Tensor]:
        logits = state.model(self.images(state, x))
        loss = self.loss(state, logits, y)
        loss.backward()
        self.update(state)
        return {"cross_entropy": loss.detach(), "accuracy": (logits.argmax(1) == y).double().mean()}

    def images(self, state, x: Tensor) -> Tensor:
        return x

    def loss(self, state, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def update(self, state) -> None:
        state.update()


class KeepsAGraph(Plain):
    def step(self, state, x, y, *, generator):
        logits = state.model(x)
        loss = self.loss(state, logits, y)
        loss.backward(retain_graph=True)
        state.update()
        return {"cross_entropy": loss, "accuracy": loss.detach()}


class HeadOnly(Plain):
    def update(self, state) -> None:
        for name, weight in state.module.named_parameters():
            weight.grad = weight.grad if name.startswith("head") else None
        state.update()


class Climbs(Plain):
    def loss(self, state, logits: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, y)
        return 2 * loss.detach() - loss


class DrawsGlobally(Plain):
    def images(self, state, x: Tensor) -> Tensor:
        return x + 0.1 * torch.rand_like(x)


class ThawsAndStays(Plain):
    """It leaves a weight without its flag, and the model in eval mode."""

    def update(self, state) -> None:
        state.update()
        state.module.requires_grad_(True).eval()


class LeavesAHook(Plain):
    def images(self, state, x: Tensor) -> Tensor:
        state.module.conv.register_forward_hook(lambda *args: None)
        return x


class LeavesGradients(Plain):
    def update(self, state) -> None:
        state.optimiser.step()
        state.updates += 1


class Deviates(Plain):
    """Divides by the batch's deviation, which one image does not have."""

    def loss(self, state, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y) / y.double().std(correction=0)


class FirstCounts(Plain):
    def images(self, state, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, len(x)).reshape(-1, 1, 1, 1)


class UpdatesTwice(Plain):
    def update(self, state) -> None:
        state.update()
        state.update()


class Remembers(Plain):
    """Its step depends on how often this very object was used."""

    used = 0

    def images(self, state, x: Tensor) -> Tensor:
        self.used += 1
        return x * self.used

    def __deepcopy__(self, memo: object) -> Remembers:
        return Remembers()


CONTROLS = (
    (KeepsAGraph(), tells_finite_scalars_without_graph),
    (HeadOnly(), trains_every_weight),
    (Climbs(), learns),
    (DrawsGlobally(), is_decided_by_its_streams),
    (DrawsGlobally(), touches_no_global_generator),
    (ThawsAndStays(), leaves_all_but_weights_as_it_was),
    (LeavesAHook(), leaves_all_but_weights_as_it_was),
    (LeavesGradients(), leaves_all_but_weights_as_it_was),
    (Deviates(), works_on_one_image),
    (FirstCounts(), does_not_depend_on_order),
    (UpdatesTwice(), makes_the_passes_and_updates_that_it_states),
    (Remembers(), goes_on_from_memory),
)


@pytest.mark.parametrize(
    ("control", "promise"), CONTROLS, ids=lambda part: getattr(part, "__name__", type(part).__name__)
)
def test_control_fails(control: Algorithm, promise: Callable[[Algorithm, Case], None]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        promise(control, Case(spec="natural", passes=1, updates=1))


@pytest.mark.parametrize("promise", PROMISES[:-1], ids=lambda promise: promise.__name__)
def test_the_plain_one_keeps_them(promise: Callable[[Algorithm, Case], None]) -> None:
    """What the controls spoil breaks no promise unspoiled."""
    promise(Plain(), Case(spec="natural", passes=1, updates=1))
