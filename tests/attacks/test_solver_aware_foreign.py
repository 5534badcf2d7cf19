"""Attacks that climb on a twin of a model which somebody wrote on torchdiffeq."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreigners import new_sonet, old_sonet, timed_net
from torch import Tensor, nn

from verigrad.attacks.base import Steered
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import BatchOfOne, FixedSteps, FrozenGrid, InitialStepOnly, OnTwin, WholeGrid
from verigrad.core.classifier import predict
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.models.carrying import Carrying, foreign_solves
from verigrad.models.loading import load_model
from verigrad.models.networks.small import SmallConvNet
from verigrad.solvers import RK4_38, Direct, Fixed

# torchdiffeq 0.0.1 reads scalars from its graph; torch says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

SONET = str(Path(__file__).parents[1] / "nets" / "sonet")
N = 16
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_the_released_gradient_hides_what_the_frozen_grid_breaks() -> None:
    """The demo's finding, on a net that has nothing of ours: torchdiffeq 0.0.1 differentiates its step sizes."""
    model, data = old_sonet(), load_data("digits", n=N)
    right = predict(model, data.x, batch=N).argmax(1) == data.y
    pgd = PGD(steps=20, step_size=0.015, random_start=False, keep="last", score="cross_entropy")
    left = {}
    for name, attack in {"full": pgd, "frozen": OnTwin(attack=pgd, change=FrozenGrid())}.items():
        found = attack(model, data.x, data.y, Linf(eps=0.12), generator=seeded(0, name, range(N)))
        errs = predict(model, found.x_adv, batch=N).argmax(1) != data.y
        assert bool((errs >= found.broken).all())  # judged by torchdiffeq alone
        left[name] = int((right & ~found.broken).sum())
    assert int(right.sum()) > 0.9 * N
    assert left["full"] - left["frozen"] > 0.3 * N, left


def test_changes_of_the_solver_reach_its_calls() -> None:
    model = new_sonet()
    for change, grid in ((FrozenGrid(), "frozen"), (InitialStepOnly(), "first"), (WholeGrid(), "all")):
        twin = change(model)
        assert isinstance(twin, Carrying)
        assert {one.gradient for one in foreign_solves(twin, X)} == {Direct(grid=grid)}
    fixed = foreign_solves(FixedSteps(method="rk4", steps=3)(model), X)
    assert {(one.method, one.control) for one in fixed} == {(RK4_38.name, Fixed(steps=3))}


class Seen:
    """An attack that keeps what it is given."""

    def __call__(self, model, x, y, threat, *, generator):
        assert isinstance(model, Steered)
        self.model = model
        return model


def test_no_carried_forward_pass_stands_for_the_models() -> None:
    for made, same in ((new_sonet(), False), (load_model(SONET), True)):
        seen = Seen()
        OnTwin(attack=seen, change=FrozenGrid())(made, X, X, Linf(eps=0.1), generator=seeded(0, "", range(3)))
        assert seen.model.same_forward is same


def pulled(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    at = x.clone().requires_grad_(True)
    logits = model(at)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), at)[0]


def alone(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*(pulled(model, one[None]) for one in x), strict=True))


def test_the_whole_grid_is_what_the_old_torchdiffeq_differentiates() -> None:
    model = old_sonet()
    own, whole, frozen = (pulled(one, X)[1] for one in (model, WholeGrid()(model), FrozenGrid()(model)))
    assert float((whole - own).norm()) < 1e-2 * float(own.norm())
    assert float((frozen - own).norm()) > 0.1 * float(own.norm())


class BatchMean(nn.Module):
    """Coupled by the batch's mean, and by nothing else that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = new_sonet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + 0.5 * x.mean(0))


@pytest.mark.parametrize(
    ("make", "agree"),
    [
        (old_sonet, True),
        (lambda: timed_net(rtol=0.1, atol=0.1), False),  # its field takes one time for all
        (BatchMean, False),
        (lambda: SmallConvNet(in_channels=1).eval(), False),
        (lambda: timed_net(method="dopri8"), False),
    ],
    ids=["sonet", "one time", "coupled by its mean", "no ODE", "not carried"],
)
def test_each_sample_is_run_as_if_it_were_alone(make, agree: bool) -> None:
    model = make()
    twin = BatchOfOne()(model)
    got, want = pulled(twin, X), alone(model, X)
    assert twin.agree is agree
    for a, b in zip(got, want, strict=True):
        assert float((a - b).norm()) <= 1e-2 * float(b.norm())


def test_a_batch_of_one_asks_nothing() -> None:
    twin = BatchOfOne()(old_sonet())
    twin(X[:1])
    assert twin.agree is None
