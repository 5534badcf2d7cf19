"""Audits of models that somebody wrote on torchdiffeq, which know nothing of us."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from foreigners import adjoint_sonet, new_sonet, old_sonet, timed_net
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from verigrad.attacks.pgd import PGD
from verigrad.auditing.audit import audit
from verigrad.auditing.claim import Budget, Claim
from verigrad.auditing.foreign import NOT_FOREIGN, recognise
from verigrad.auditing.health import grid_gradient
from verigrad.auditing.identity import Names
from verigrad.auditing.interventions import by_adjoint, differentiated_grid, interventions
from verigrad.auditing.patient import Patient
from verigrad.auditing.verifying import verify
from verigrad.core.threat import Linf
from verigrad.data.images import Images
from verigrad.data.load import load_data
from verigrad.evaluation.replay import replay
from verigrad.ledger.store import Ledger
from verigrad.solvers import foreign

# torchdiffeq 0.0.1 reads scalars from its graph; torch says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

N, THREAT = 30, Linf(eps=0.05)
SMALL = Budget(
    survivors=N,
    effort=2,
    restarts=2,
    noise_draws=1,
    spsa_steps=1,
    spsa_samples=2,
    spsa_survivors=N,
    rounds=2,
    first_steps=5,
    health_samples=N,
)
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def conv_ode() -> nn.Module:
    """A conv ODE classifier on torchdiffeq 0.2.5, trained through it at a loose tolerance for a moment."""
    model, data = timed_net(rtol=0.1, atol=0.1, method="bosh3"), load_data("digits", n=400)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(80):
        rows = torch.arange(100) + 100 * (step % 4)
        loss = nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model


def ways(model: nn.Module, *, coupled: bool, **named: object) -> list[tuple[str, str]]:
    made = interventions(PGD(), model, coupled=coupled, random=False, reach=0.1, budget=SMALL, **named)
    return [(way.name, way.cause) for way in made]


def test_the_audit_of_a_torchdiffeq_model_is_that_of_any_ode(conv_ode, sonet, tmp_path: Path, monkeypatch):
    data = load_data("digits", n=N)
    claim = Claim(attack=PGD(steps=4, step_size=0.02, random_start=False, keep="last", score="cross_entropy"))
    found = audit(conv_ode, data, THREAT, claim=claim, budget=SMALL, batch=N, out=tmp_path)
    assert found.summary["clean"] > 0.8
    tried = [row["name"] for row in found.summary["attacks"] if row["stage"] == "intervention"]
    same = interventions(claim.attack, sonet, coupled=True, random=False, reach=THREAT.reach(data.x[:1]), budget=SMALL)
    assert tried == [way.name for way in same]
    assert tried[:2] == ["frozen grid", "batch of one"]
    (solver,) = found.summary["identity"]["solver"]
    for fact in ("odeint", "bosh3", "BatchCoupled(rtol=0.1, atol=0.1", "Direct(grid='first')"):
        assert fact in solver
    (check,) = (check for check in found.summary["health"] if check["name"] == "grid_gradient")
    assert check["value"] is not None

    monkeypatch.setattr(foreign, "carry", None)  # from here on nothing can be carried
    with Ledger.read(tmp_path / "ledger.sqlite") as ledger:
        stood = replay(conv_ode, data.x, data.y, THREAT, ledger, N)
        assert stood.stood == len(ledger.witnesses()) > 0
        assert not stood.fallen


def test_an_audit_on_a_foreign_twin_is_verified(tmp_path: Path):
    claim = Claim(attack=PGD(steps=2, keep="last"))
    names = Names(model="foreigners:timed_net", data="digits")
    found = audit(
        timed_net(),
        load_data("digits", n=10),
        Linf(eps=1e-4),
        claim=claim,
        budget=SMALL,
        batch=N,
        out=tmp_path,
        names=names,
    )
    assert any("on the twin" in row["name"] for row in found.summary["attacks"])
    assert verify(tmp_path).seal == found.summary["seal"]


@pytest.mark.slow
def test_what_hides_the_gradient_of_a_vendored_torchdiffeq_is_named():
    data = load_data("digits", n=20)
    claim = Claim(attack=PGD(steps=10, step_size=0.03, random_start=False, keep="last", score="cross_entropy"))
    found = audit(old_sonet(), data, Linf(eps=0.12), claim=claim, budget=SMALL, batch=20)
    assert (found.verdict, found.summary["main_cause"]) == ("obfuscated", "grid")


GRID, ADJOINT = ("frozen grid", "grid"), ("gradient of the steps", "adjoint")


@pytest.mark.parametrize(
    ("make", "call", "gradient", "law", "way"),
    [
        (old_sonet, "odeint: dopri5", "Direct(grid='all')", "first_by_part=True", GRID),
        (new_sonet, "odeint: dopri5", "Direct(grid='first')", "first_by_part=False", GRID),
        (adjoint_sonet, "odeint_adjoint: dopri5", "Adjoint(rtol=0.1, atol=0.1)", "first_by_part=False", ADJOINT),
    ],
)
def test_what_a_model_asks_of_torchdiffeq_is_known(make, call: str, gradient: str, law: str, way: tuple[str, str]):
    model = make()
    known = recognise(model, X, seed=0)
    assert len(known.solves) == 6
    assert not known.refused
    assert all(fact in text for text in known.texts() for fact in (call, "BatchCoupled(rtol=0.1", law, gradient))
    assert differentiated_grid(model, known.solves) == (way == GRID)
    assert by_adjoint(model, known.solves) == (way == ADJOINT)
    found = ways(model, coupled=True, solves=known.solves)
    assert [one for one in found if one in (GRID, ADJOINT)] == [way]
    assert way not in ways(model, coupled=True)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({"method": "rk4"}, "odeint: rk4_38, one step, Direct(grid='first')"),
        ({"method": "euler", "options": {"step_size": 0.25}}, "odeint: euler, 4 given steps, Direct(grid='first')"),
    ],
)
def test_given_steps_have_no_grid_to_freeze(call: dict[str, object], text: str):
    model = timed_net(**call)
    known = recognise(model, X, seed=0)
    assert known.texts() == [text]
    assert not differentiated_grid(model, known.solves)


def test_our_own_blocks_and_plain_nets_are_not_foreign(sonet: nn.Module, natural: nn.Module):
    old_sonet()
    assert recognise(sonet, X, seed=0) == recognise(natural, X, seed=0) == NOT_FOREIGN


class Checkpointed(nn.Module):
    """Makes its solve anew in the backward pass, when no context is open."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timed_net(rtol=0.1, atol=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: timed_net(method="dopri8"), "dopri8"),
        (Checkpointed, ""),
        (lambda: timed_net(options={"norm": max}), "norm"),
    ],
    ids=["dopri8", "checkpointed", "norm"],
)
def test_a_model_that_cannot_be_carried_is_audited_without(make, why: str, digits: Images):
    model = make().eval()
    known = recognise(model, X, seed=0)
    assert known.solves == ()
    assert known.refused
    assert why in known.refused
    assert known.texts() == [f"torchdiffeq, not carried: {known.refused}"]
    assert ("frozen grid", "grid") not in ways(model, coupled=True, solves=known.solves)
    x, y = digits.x[:4], digits.y[:4]
    patient = Patient(model=model, x=x, y=y, rows=torch.arange(4), threat=THREAT, seed=0, foreign=known)
    check = grid_gradient(patient)
    assert (check.value, check.fired) == (None, False)
    assert known.refused in check.detail


def test_what_only_looks_like_torchdiffeq_is_left_to_itself(monkeypatch):
    def odeint(func, y0, t, rtol=1e-7, atol=1e-9, method=None, options=None):
        return torch.stack([y0, 5 * y0 + func(t[0], y0)])

    def odeint_adjoint(func, y0, t, rtol=1e-7, atol=1e-9, method=None, options=None):
        return torch.stack([y0, 5 * y0])

    odd = ModuleType("odd")
    for function in (odeint, odeint_adjoint):
        function.__module__ = "odd.solvers"
        setattr(odd, function.__name__, function)
    monkeypatch.setitem(sys.modules, "odd", odd)
    model = timed_net()
    model.integrate = odeint
    known = recognise(model, X, seed=0)
    assert known.solves == ()
    assert "its logits change by" in known.refused


def test_recognising_leaves_everything_as_it_was():
    model = new_sonet().train()
    code, draws = model.integrate.__code__, torch.random.get_rng_state()
    x = X.clone()
    recognise(model, x, seed=0)
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert model.integrate.__code__ is code
    assert torch.equal(torch.random.get_rng_state(), draws)
    assert torch.equal(x, X)
    assert not x.requires_grad
