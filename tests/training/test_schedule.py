"""Schedules against PyTorch's own, and bad numbers."""

import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import OneCycle, Steps


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
    ("make", "message"),
    [
        (lambda: Steps(at=(0.5, 0.2)), "increasing numbers"),
        (lambda: Steps(factor=0.0), "'factor' of Steps"),
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
