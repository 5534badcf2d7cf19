"""Whole audits of small classifiers whose masks are known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

import verigrad
from verigrad.attacks.pgd import PGD
from verigrad.auditing.audit import Audit, audit
from verigrad.auditing.claim import Budget, Claim
from verigrad.core.errors import BadInput
from verigrad.core.threat import L0, L2, Linf
from verigrad.data.images import Images
from verigrad.evaluation.replay import replay
from verigrad.ledger.errors import LedgerMismatch
from verigrad.ledger.store import Ledger
from verigrad.models.masks import QuantisedInput, ScaledLogits

CLAIM = Claim(attack=PGD(steps=20, step_size=0.015, random_start=False, keep="last"))
SMALL = Budget(spsa_survivors=20, spsa_steps=5, rounds=4)
THREAT = Linf(eps=0.12)


def run(model: nn.Module, data: Images, **named: object) -> Audit:
    return audit(model.eval(), data, THREAT, claim=CLAIM, budget=SMALL, **named)  # type: ignore[arg-type]


def test_an_honest_model_is_not_called_obfuscated(natural: nn.Module, hardened: nn.Module, digits: Images):
    for model in (natural, hardened):
        found = run(model, digits)
        assert found.verdict in ("upheld", "overstated")
        assert not any(cause["kind"] == "masking" and cause["confirmed"] for cause in found.summary["causes"])


def test_saturation_is_named(natural: nn.Module, digits: Images):
    found = run(ScaledLogits(natural, 1000.0), digits)
    assert (found.verdict, found.summary["main_cause"]) == ("obfuscated", "saturation")
    assert found.summary["claimed"] > 0.9
    assert found.found < 0.6


def test_a_rounding_is_named(natural: nn.Module, digits: Images):
    found = run(QuantisedInput(natural, 8), digits)
    assert (found.verdict, found.summary["main_cause"]) == ("obfuscated", "no_derivative")


def test_masks_do_not_make_a_model_more_robust_than_it_is(natural: nn.Module, digits: Images):
    plain, scaled = run(natural, digits), run(ScaledLogits(natural, 1000.0), digits)
    assert abs(plain.found - scaled.found) <= 0.03


def test_a_stated_claim_far_above_is_contradicted(natural: nn.Module, digits: Images):
    stated = Claim(attack=CLAIM.attack, accuracy=0.9)
    found = audit(natural, digits, THREAT, claim=stated, budget=SMALL)
    assert found.verdict == "overstated"
    assert found.summary["claimed"] == 0.9
    assert found.summary["gap"] == pytest.approx(0.9 - found.found)


def test_under_l0_the_greedy_attack_finds_what_pgd_cannot(natural: nn.Module, digits: Images):
    found = audit(natural, digits, L0(pixels=3), claim=Claim(attack=PGD(steps=20)), budget=SMALL)
    broken = {attack["name"]: attack["broken"] for attack in found.summary["attacks"]}
    assert any("greedy" in name and count > 50 for name, count in broken.items())
    assert found.verdict in ("overstated", "obfuscated")
    assert found.found < 0.1


def test_the_summary_adds_up(natural: nn.Module, digits: Images, tmp_path: Path):
    found = run(QuantisedInput(natural, 8), digits, out=tmp_path / "audit")
    summary = found.summary
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == summary
    n, rows = summary["n"], summary["attacks"]
    assert round((summary["clean"] - rows[0]["remaining"]) * n) == rows[0]["added"]
    for before, after in pairwise(rows):
        assert round((before["remaining"] - after["remaining"]) * n) == after["added"]
    assert rows[-1]["remaining"] == summary["found"]
    assert summary["interval"][0] <= summary["found"] <= summary["interval"][1]
    with Ledger.read(tmp_path / "audit" / "ledger.sqlite") as ledger:
        broken = {witness.sample for witness in ledger.witnesses()}
        assert len(broken) == round((summary["clean"] - summary["found"]) * n)
        assert ledger.seal() == summary["seal"]
        model = QuantisedInput(natural, 8).eval()
        assert not replay(model, digits.x, digits.y, THREAT, ledger, 100).fallen


def test_the_same_audit_again_changes_nothing(natural: nn.Module, digits: Images, tmp_path: Path):
    first = run(natural, digits, out=tmp_path)
    assert run(natural, digits, out=tmp_path).summary == first.summary
    with pytest.raises(LedgerMismatch, match="seed"):
        run(natural, digits, out=tmp_path, seed=1)


def test_the_python_face(natural: nn.Module, digits: Images):
    found = verigrad.audit(natural, (digits.x[:60], digits.y[:60]), verigrad.L2(eps=0.5), budget=SMALL)
    assert found.verdict in ("upheld", "overstated", "undecided")
    assert isinstance(verigrad.L2(eps=0.5), L2)


def test_what_cannot_be_audited_is_refused(natural: nn.Module, digits: Images):
    probabilities = nn.Sequential(natural, nn.Softmax(1))
    with pytest.raises(BadInput, match="softmax"):
        run(probabilities, digits)
    with pytest.raises(BadInput, match="Divide a percentage"):
        Claim(accuracy=62.0)
    training = nn.Sequential(nn.BatchNorm2d(1), natural).train()
    with pytest.raises(BadInput, match="eval"):
        audit(training, digits, THREAT)


def test_the_global_generator_is_not_touched(natural: nn.Module, digits: Images):
    before = torch.random.get_rng_state()
    run(natural, digits)
    assert torch.equal(before, torch.random.get_rng_state())


class Gated(nn.Module):
    """Cuts its gradient wherever the first pixel, which is always empty in the digits, is not; `open` undoes that."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.open = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        touched = (x[:, :1, :1, :1] > 0) & (not self.open)
        return self.module(torch.where(touched, x.detach(), x))


def test_a_gradient_that_goes_where_attacks_lead_upholds_nothing(hardened: nn.Module, digits: Images):
    found = run(Gated(hardened), digits)
    fired = {check["name"] for check in found.summary["health"] if check["fired"]}
    assert "zero_gradient_in_attack" in fired
    assert found.verdict != "upheld"


class Offset(Gated):
    """Gives the gradient of the image's mirror wherever the first pixel is not empty: there it is finite, and wrong."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        touched = (x[:, :1, :1, :1] > 0) & (not self.open)
        mirrored = x.detach() - x.flip(3).detach() + x.flip(3)
        return self.module(torch.where(touched, mirrored, x))


def test_a_gradient_that_is_wrong_where_attacks_lead_upholds_nothing(hardened: nn.Module, digits: Images):
    found = run(Offset(hardened), digits)
    fired = {check["name"] for check in found.summary["health"] if check["fired"]}
    assert "finite_difference" not in fired
    assert "finite_difference_in_attack" in fired
    assert found.verdict != "upheld"


def test_other_code_with_the_same_weights_is_another_audit(hardened: nn.Module, digits: Images, tmp_path: Path):
    model = Gated(hardened)
    first = digits.x.clone()
    first[0, 0, 0, 0] = 1.0
    touched = Images(x=first, y=digits.y, ids=digits.ids, classes=10, name="one is touched")
    run(model, touched, out=tmp_path)
    model.open = True
    with pytest.raises(LedgerMismatch, match="behaviour"):
        run(model, touched, out=tmp_path)


def test_an_intervention_that_changes_nothing_breaks_nothing(hardened: nn.Module, digits: Images):
    """It draws what the claim's attack drew: with other random starts it would break a few."""
    claim = Claim(attack=PGD(steps=10, keep="last"))
    found = audit(hardened, digits, Linf(eps=0.16), claim=claim, budget=SMALL)
    broke = {row["name"]: row["broken"] for row in found.summary["attacks"]}
    assert broke["identity backward"] == 0
    assert broke["5 random starts"] > 0


def test_a_model_that_raises_is_told_in_one_line(natural: nn.Module, digits: Images):
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = natural

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(((x > 0) & (x < 0.01)).any()):
                raise ValueError("pixels must be multiples of 1/16")
            return self.module(x)

    with pytest.raises(BadInput, match="pixels must be multiples"):
        run(Picky(), digits)
