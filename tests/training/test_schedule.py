"""Schedules against PyTorch's own, and bad numbers."""

import re
from pathlib import Path

import pytest
import torch

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import (
    FREE,
    GRADIENT_REGULARIZATION,
    MADRY,
    NATURAL_ROBUSTNESS_CIFAR,
    NATURAL_ROBUSTNESS_MNIST,
    OPTIMAL_CONTROL,
    SONET,
    TRADES,
    YOPO,
    OneCycle,
    Steps,
)


def test_one_cycle_is_pytorch_s():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    total = 400
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=total, cycle_momentum=False)
    ours = OneCycle()
    for step in range(total):
        # PyTorch counts to the last step, we to the end of it: a shift of less than one step over the whole run.
        assert abs(ours(step / (total - 1)) - optimiser.param_groups[0]["lr"]) < 0.01
        optimiser.step()
        theirs.step()
    assert ours(0.0) == pytest.approx(1 / 25)
    assert ours(0.3) == pytest.approx(1.0)
    assert ours(1.0) == pytest.approx(1 / 25e4)


def test_steps_are_taken_where_they_are_due():
    schedule = Steps(at=(150 / 350, 300 / 350))
    assert [schedule(epoch / 350) for epoch in (0, 149, 150, 299, 300, 349)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert Steps()(0.99) == 1.0


@pytest.mark.parametrize(
    ("schedule", "lr", "epochs", "expected"),
    [
        (SONET, 0.01, 350, {0: 1e-2, 149: 1e-2, 150: 1e-3, 299: 1e-3, 300: 1e-5, 349: 1e-5}),
        (OPTIMAL_CONTROL, 0.01, 150, {29: 1e-2, 30: 2e-3, 60: 4e-4, 99: 4e-4, 100: 8e-5, 149: 8e-5}),
        (NATURAL_ROBUSTNESS_MNIST, 1e-3, 100, {49: 1e-3, 50: 5e-4, 99: 5e-4}),
        (NATURAL_ROBUSTNESS_CIFAR, 1e-4, 200, {49: 1e-4, 50: 5e-5, 100: 2.5e-5, 150: 1.25e-5}),
        (GRADIENT_REGULARIZATION, 0.1, 200, {59: 0.1, 60: 0.02, 120: 4e-3, 160: 8e-4, 199: 8e-4}),
        (MADRY, 0.1, 150, {49: 0.1, 50: 0.01, 100: 1e-3, 149: 1e-3}),
        (TRADES, 0.1, 76, {74: 0.1, 75: 0.01}),
        (FREE, 0.1, 80, {39: 0.1, 40: 0.01, 60: 1e-3}),
        (YOPO, 0.04, 36, {29: 0.04, 30: 4e-3, 34: 4e-4}),
    ],
)
def test_the_papers_rates(schedule, lr, epochs, expected):
    """Epochs and rates as the papers and their code state them; batches of an epoch do not move the place."""
    for batches in (1, 391):
        found = {epoch: lr * schedule(epoch * batches / (epochs * batches)) for epoch in expected}
        assert found == pytest.approx(expected)


def test_the_papers_schedules_can_be_written_as_specs():
    written = "steps:at=(150/350,300/350),factor=(0.1,0.01)"
    assert catalog.build("schedule", written) == SONET
    assert catalog.build("schedule", catalog.describe(SONET)) == SONET


def test_the_page_writes_them_as_they_are():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    written = [
        catalog.build("schedule", spec) for spec in re.findall(r"^\|.*\| `(steps:[^`]+)` \|$", page, re.MULTILINE)
    ]
    cifar, mnist = NATURAL_ROBUSTNESS_CIFAR, NATURAL_ROBUSTNESS_MNIST
    assert written == [SONET, OPTIMAL_CONTROL, mnist, cifar, GRADIENT_REGULARIZATION, MADRY, TRADES, FREE, YOPO]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Steps(at=(0.5, 0.2)), "increasing numbers"),
        (lambda: Steps(factor=0.0), "'factor' of Steps"),
        (lambda: Steps(at=(0.5,), factor=(0.1, 2.0)), "'factor' of Steps"),
        (lambda: Steps(at=(0.5,), factor=(0.1, 0.2)), "one for each of 1 places"),
        (lambda: Recipe(nesterov=True, momentum=0.0), "'nesterov' of a Recipe needs sgd"),
        (lambda: Recipe(nesterov=True, optimiser="adam"), "'nesterov' of a Recipe needs sgd"),
        (lambda: Recipe(clip=0.0), "Got 0.0"),
        (lambda: Recipe(precision="float16"), "Got 'float16'"),
        (lambda: OneCycle(peak=1.0), "'peak' of OneCycle"),
        (lambda: Recipe(epochs=0), "at least 1. Got 0 and 100"),
        (lambda: Recipe(optimiser="lion"), "Got 'lion'"),
        (lambda: Recipe(lr=-0.1), "positive number. Got -0.1"),
        (lambda: Recipe(lr=float("nan")), "positive number. Got nan"),
        (lambda: Recipe(momentum=1.0), "'momentum' of a Recipe"),
        (lambda: Recipe(validation=-1), "must not be negative"),
    ],
)
def test_bad_numbers_are_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
