"""What of the step grid is differentiated decides what an attack finds: the measurement behind the causes.

The SONet is the one of the demo, as released (dopri5 at tolerance 0.1, one step size for the batch, differentiated as
torchdiffeq 0.0.1 did). One batch of 50 digits, Linf 0.12, PGD-20 with steps of 0.015 and no random start, judged on the
model in that batch. Only the gradient differs from row to row.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from verigrad.attacks.base import Attack
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import BatchOfOne, FrozenGrid, InitialStepOnly, OnTwin
from verigrad.core.classifier import predict
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.models.loading import load_model

N = 50


def pgd(score: str) -> PGD:
    return PGD(steps=20, step_size=0.015, random_start=False, keep="last", score=score)


ROWS: dict[str, Attack] = {
    "full": pgd("cross_entropy"),
    "full, margin": pgd("margin"),
    "alone": OnTwin(attack=pgd("cross_entropy"), change=BatchOfOne()),
    "first step": OnTwin(attack=pgd("cross_entropy"), change=InitialStepOnly()),
    "frozen": OnTwin(attack=pgd("cross_entropy"), change=FrozenGrid()),
    "frozen, margin": OnTwin(attack=pgd("margin"), change=FrozenGrid()),
}


@cache
def left(name: str) -> int:
    """How many of the N digits a row leaves unbroken."""
    model: nn.Module = load_model(str(Path(__file__).parents[1] / "nets" / "sonet"))
    data = load_data("digits", n=N)
    right = predict(model, data.x, batch=N).argmax(1) == data.y
    assert int(right.sum()) > 0.9 * N
    result = ROWS[name](model, data.x, data.y, Linf(eps=0.12), generator=seeded(0, name, range(N)))
    assert torch.isfinite(result.x_adv).all()
    return int((right & ~result.broken).sum())


def test_the_full_gradient_leaves_many_that_the_frozen_grid_breaks() -> None:
    assert left("full") - left("frozen") > 0.3 * N
    assert left("frozen") < 0.2 * N


@pytest.mark.slow
def test_every_way_around_the_batchs_controller_finds_more() -> None:
    table = {name: left(name) for name in ROWS}
    assert table["frozen"] < table["first step"] < table["full"], table
    assert table["alone"] < table["full"], table
    assert table["full, margin"] < table["full"], table
    assert table["frozen, margin"] < table["full"], table


@pytest.mark.slow
def test_the_table_is_what_the_seed_makes_it() -> None:
    """Attacks draw nothing here, so the same row comes out of a second run with other streams."""
    model = load_model(str(Path(__file__).parents[1] / "nets" / "sonet"))
    data = load_data("digits", n=N)
    again = ROWS["frozen"](model, data.x, data.y, Linf(eps=0.12), generator=seeded(1, "other", range(N)))
    right = predict(model, data.x, batch=N).argmax(1) == data.y
    assert int((right & ~again.broken).sum()) == left("frozen")
