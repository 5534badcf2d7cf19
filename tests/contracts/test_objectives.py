"""The contract that every objective of the catalog keeps, and objectives that break it, one promise each.

A promise is a function that raises AssertionError. `test_promises` runs all of them on all objectives;
`test_control_fails` runs each on an objective made to break it, so that no promise is empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from verigrad.catalog import build, describe, entries
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.training.objectives.base import Loss, Objective
from verigrad.training.objectives.natural import Natural
from verigrad.training.objectives.noise import GaussianNoise

SHAPE = (2, 5, 5)
N = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """One objective as a spec, the passes that it states, and whether it draws."""

    spec: str
    forwards: int
    backwards: int
    draws: bool = True

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]


CASES = (
    Case(spec="natural", forwards=1, backwards=1, draws=False),
    Case(spec="natural:smoothing=0.1", forwards=1, backwards=1, draws=False),
    Case(spec="gaussian-noise:sigma=0.25", forwards=1, backwards=1),
    Case(spec="gaussian-noise:sigma=0.25,clamp=true", forwards=1, backwards=1),
    Case(spec="adversarial:threat=linf(eps=0.1)", forwards=8, backwards=8),
    Case(spec="adversarial:threat=linf(eps=0.1),attack=fgsm", forwards=2, backwards=2, draws=False),
    Case(spec="adversarial:threat=l2(eps=0.5),attack=pgd(steps=3,keep=last)", forwards=4, backwards=4),
    Case(spec="adversarial:threat=l0(pixels=2),attack=pgd(steps=3,keep=last)", forwards=4, backwards=4),
    # The way of this one depends on its judgements, before its second start and at the end: two forwards more.
    Case(
        spec="adversarial:threat=linf(eps=0.001),attack=pgd(steps=2,step_size=1e-4,restarts=2,keep=last)",
        forwards=7,
        backwards=5,
    ),
    Case(spec="fgsm-adversarial:threat=linf(eps=0.1)", forwards=2, backwards=2),
    Case(spec="fgsm-adversarial:threat=l2(eps=0.5)", forwards=2, backwards=2),
    Case(spec="trades:threat=linf(eps=0.1)", forwards=13, backwards=12),
    Case(spec="trades:threat=l2(eps=0.5),beta=1,steps=3", forwards=6, backwards=5),
    Case(spec="trades:threat=l0(pixels=2),steps=3", forwards=6, backwards=5),
    *(
        Case(
            spec=f"gradient-penalty:norm={norm},squared={squared},by={by},h=0.1",
            forwards=forwards,
            backwards=backwards,
            draws=False,
        )
        for norm in ("l2", "l1")
        for squared in ("true", "false")
        for by, forwards, backwards in (
            ("finite-differences", 2, 3),
            ("double-backprop", 1, 2),
            ("shared-backward", 2, 2),
        )
    ),
)


class Net(nn.Module):
    """Convolution, batch norm and a smooth activation in double precision, so that order is no more than rounding.

    It counts forwards, and backwards from its logits.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv, self.norm = nn.Conv2d(SHAPE[0], 4, 3, dtype=torch.float64), nn.BatchNorm2d(4, dtype=torch.float64)
        self.head = nn.Linear(36, 3, dtype=torch.float64)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.7)
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits = self.head(nn.functional.gelu(self.norm(self.conv(x))).flatten(1))
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient: Tensor) -> None:
        self.backwards += 1


def batch(n: int = N) -> tuple[Tensor, Tensor]:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(n) % 3


def streams(unit: str = "unit", n: int = N) -> SampleGenerator:
    return seeded(0, unit, range(n))


def run(objective: Objective, model: Net | None = None, unit: str = "unit", n: int = N) -> Loss:
    x, y = batch(n)
    return objective((model or Net()).train(), x, y, generator=streams(unit, n))


def gradient(objective: Objective, rows: Tensor) -> Tensor:
    """The flat gradient by the weights on these samples of the batch."""
    model = Net().train()
    x, y = batch()
    objective(model, x[rows], y[rows], generator=streams()[rows]).total.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def is_a_finite_scalar_with_parts_for_records(objective: Objective, case: Case) -> None:
    loss = run(objective)
    assert loss.total.shape == ()
    assert loss.total.requires_grad
    assert torch.isfinite(loss.total)
    assert {"cross_entropy", "accuracy"} <= loss.parts.keys()
    for part in loss.parts.values():
        assert part.shape == ()
        assert not part.requires_grad
        assert torch.isfinite(part)


def trains_every_weight(objective: Objective, case: Case) -> None:
    model = Net()
    run(objective, model).total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
        # Batch norm cancels the bias before it; what is left there is rounding.
        assert weight.grad.norm() > 1e-6 or name == "conv.bias", name


def is_decided_by_its_streams(objective: Objective, case: Case) -> None:
    assert torch.equal(run(objective).total, run(objective).total)
    assert bool(run(objective).total != run(objective, unit="other").total) == case.draws


def touches_no_global_generator(objective: Objective, case: Case) -> None:
    model = Net()
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    run(objective, model).total.backward()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


def leaves_model_and_batch_as_they_were(objective: Objective, case: Case) -> None:
    """But for what a forward in training mode moves: the running statistics, once for each of its forwards."""
    model = Net().train()
    model.head.bias.requires_grad_(False)
    x, y = batch()
    loss = objective(model, x, y, generator=streams())
    assert all(module.training for module in model.modules())
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["head.bias"]
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(x, batch()[0])
    assert not x.requires_grad
    in_training = 2 if case.name in ("trades", "gradient-penalty") and "double" not in case.spec else 1
    assert int(model.norm.num_batches_tracked) == in_training
    loss.total.backward()
    assert x.grad is None
    assert model.head.bias.grad is None


def works_on_one_image(objective: Objective, case: Case) -> None:
    model = Net()
    loss = run(objective, model, n=1)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert torch.isfinite(model.conv.weight.grad).all()


def does_not_depend_on_order(objective: Objective, case: Case) -> None:
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    straight, shuffled = gradient(objective, torch.arange(N)), gradient(objective, order)
    assert (straight - shuffled).norm() <= 1e-6 * straight.norm()


def makes_the_passes_that_it_states(objective: Objective, case: Case) -> None:
    model = Net()
    run(objective, model).total.backward()
    assert (model.forwards, model.backwards) == (case.forwards, case.backwards)


def is_what_its_spec_says(objective: Objective, case: Case) -> None:
    assert build("objective", describe(objective)) == objective
    with pytest.raises(AttributeError):
        objective.total = 1  # type: ignore[attr-defined]


PROMISES: tuple[Callable[[Objective, Case], None], ...] = (
    is_a_finite_scalar_with_parts_for_records,
    trains_every_weight,
    is_decided_by_its_streams,
    touches_no_global_generator,
    leaves_model_and_batch_as_they_were,
    works_on_one_image,
    does_not_depend_on_order,
    makes_the_passes_that_it_states,
    is_what_its_spec_says,
)


def test_every_objective_of_the_catalog_is_here():
    assert {entry.name for entry in entries("objective")} == {case.name for case in CASES}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_promises(case: Case, promise: Callable[[Objective, Case], None]):
    promise(build("objective", case.spec), case)


# Controls: each breaks one promise


@dataclass
class Spoiled:
    """Natural training with a fault in its loss."""

    change: Callable[[Loss], Loss]

    def __call__(self, model, x, y, *, generator):
        return self.change(Natural()(model, x, y, generator=generator))


def cut(loss: Loss) -> Loss:
    return loss._replace(total=loss.total.detach())


def infinite(loss: Loss) -> Loss:
    return loss._replace(total=loss.total / 0)


def keep_a_graph(loss: Loss) -> Loss:
    return loss._replace(parts=loss.parts | {"cross_entropy": loss.total})


def draw_globally(loss: Loss) -> Loss:
    return loss._replace(total=loss.total + torch.rand(()))


class HeadOnly:
    """Its gradient stops below the last layer."""

    def __call__(self, model, x, y, *, generator):
        loss = Natural()(model, x, y, generator=generator)
        (by_head,) = torch.autograd.grad(loss.total, model.head.weight)
        return loss._replace(total=loss.total.detach() + (by_head * model.head.weight).sum())


class IgnoresStreams:
    def __call__(self, model, x, y, *, generator):
        return GaussianNoise(sigma=0.1)(model, x, y, generator=SampleGenerator(torch.arange(len(x))))


class LeavesTraces:
    """`backward()` for the input's gradient fills the weights' gradients."""

    def __call__(self, model, x, y, *, generator):
        loss = Natural()(model, x, y, generator=generator)
        loss.total.backward(retain_graph=True)
        return loss


class StaysInEval:
    def __call__(self, model, x, y, *, generator):
        return Natural()(model.eval(), x, y, generator=generator)


class WritesIntoTheBatch:
    def __call__(self, model, x, y, *, generator):
        return Natural()(model, x.mul_(0.5), y, generator=generator)


class Deviates:
    """Divides by the batch's deviation, which one image does not have."""

    def __call__(self, model, x, y, *, generator):
        loss = Natural()(model, x, y, generator=generator)
        return loss._replace(total=loss.total / y.double().std(correction=0))


class FirstCounts:
    def __call__(self, model, x, y, *, generator):
        return Natural()(model, x[:1], y[:1], generator=generator)


class LooksTwice:
    def __call__(self, model, x, y, *, generator):
        model(x)
        return Natural()(model, x, y, generator=generator)


CONTROLS = (
    (Spoiled(cut), is_a_finite_scalar_with_parts_for_records),
    (Spoiled(infinite), is_a_finite_scalar_with_parts_for_records),
    (Spoiled(keep_a_graph), is_a_finite_scalar_with_parts_for_records),
    (HeadOnly(), trains_every_weight),
    (Spoiled(draw_globally), is_decided_by_its_streams),
    (IgnoresStreams(), is_decided_by_its_streams),
    (Spoiled(draw_globally), touches_no_global_generator),
    (LeavesTraces(), leaves_model_and_batch_as_they_were),
    (StaysInEval(), leaves_model_and_batch_as_they_were),
    (WritesIntoTheBatch(), leaves_model_and_batch_as_they_were),
    (LooksTwice(), leaves_model_and_batch_as_they_were),
    (Deviates(), works_on_one_image),
    (FirstCounts(), does_not_depend_on_order),
    (LooksTwice(), makes_the_passes_that_it_states),
)


@pytest.mark.parametrize(
    ("control", "promise"),
    CONTROLS,
    ids=lambda part: getattr(getattr(part, "change", part), "__name__", type(part).__name__),
)
def test_control_fails(control: Objective, promise: Callable[[Objective, Case], None]):
    draws = isinstance(control, IgnoresStreams)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        promise(control, Case(spec="natural", forwards=1, backwards=1, draws=draws))
