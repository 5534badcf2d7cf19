"""A twin at another tolerance: nearer to the true flow, and what an attack on each rung finds."""

from pathlib import Path

import pytest
import torch

from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import OnTwin, OtherTolerance
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.models.loading import load_model
from verigrad.models.ode_block import recording

SONET = Path(__file__).parents[1] / "nets" / "sonet"


def test_a_smaller_tolerance_takes_more_steps_and_comes_nearer_to_the_flow():
    model, x = load_model(str(SONET)), load_data("digits", n=10).x
    with torch.no_grad():
        flow = OtherTolerance(tol=1e-6)(model)(x)
        apart, steps = [], []
        for tol in (1e-1, 1e-2, 1e-4):
            twin = OtherTolerance(tol=tol)(model)
            with recording(twin) as walks:
                apart.append(float((twin(x) - flow).norm()))
            steps.append(sum(int(walk.grid.steps.max()) for walk in walks.values()))
    assert apart[0] > apart[1] > apart[2]
    assert steps[0] < steps[1] < steps[2]


def test_the_ladder_s_lowest_rung_is_the_frozen_grid():
    model, data = load_model(str(SONET)), load_data("digits", n=40)
    attack = OnTwin(attack=PGD(steps=10), change=OtherTolerance(tol=0.1))
    plain, climbed = (
        one(model, data.x, data.y, Linf(eps=0.12), generator=seeded(0, "ladder", range(40))).broken.sum()
        for one in (PGD(steps=10), attack)
    )
    assert climbed > plain


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan")])
def test_a_tolerance_is_positive(tol: float):
    with pytest.raises(BadInput, match="'tol' of OtherTolerance must be a positive number"):
        OtherTolerance(tol=tol)
