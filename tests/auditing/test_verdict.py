"""The rules of the verdict, on counts alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from verigrad.auditing.causes import CAUSES
from verigrad.auditing.verdict import EXCEEDS, EXPLAINS, FEWEST, MATERIAL, Facts, Tried, findings, judge, material

FACTS = Facts(n=200, measured=120, found=120, stated=None, fired={}, answered=frozenset(), converged=True)
GRID = Tried(cause="grid", name="frozen grid", attempted=120, witnesses=115, reachable=118)
SCORE = Tried(cause="score", name="margin score", attempted=120, witnesses=110, reachable=118)


def verdict(facts: Facts, *tried: Tried) -> str:
    return judge(facts, findings(list(tried), facts.fired)).verdict


def test_nothing_found_and_converged_is_upheld():
    assert verdict(FACTS) == "upheld"


def test_upheld_needs_a_converged_escalation():
    assert verdict(replace(FACTS, converged=False)) == "undecided"


def test_upheld_needs_gradients_that_can_be_trusted():
    doubtful = replace(FACTS, fired={"zero_gradient": "masking"})
    assert verdict(doubtful) == "undecided"
    assert verdict(replace(doubtful, answered=frozenset({"zero_gradient"}))) == "upheld"


def test_upheld_needs_enough_samples():
    assert verdict(replace(FACTS, n=20, measured=12, found=12)) == "undecided"


def test_a_gap_without_a_masking_cause_is_overstated():
    assert verdict(replace(FACTS, found=100), SCORE) == "overstated"


def test_a_masking_cause_needs_intervention_and_health():
    found = replace(FACTS, found=2)
    assert verdict(found, GRID) == "overstated", "no health check agrees"
    assert verdict(replace(found, fired={"grid_gradient": "masking"})) == "overstated", "no intervention agrees"
    assert verdict(replace(found, fired={"grid_gradient": "masking"}), GRID) == "obfuscated"


def test_a_masking_cause_must_explain_its_part():
    little = replace(GRID, witnesses=int(EXPLAINS * GRID.reachable) - 1)
    fired = {"grid_gradient": "masking"}
    assert verdict(replace(FACTS, found=2, fired=fired), little, SCORE) == "overstated"


def test_a_gap_that_reruns_could_make_is_not_material():
    assert not material(1, 200)
    assert not material(1, 5), "one sample is never material"
    assert not material(2, 60)
    assert verdict(replace(FACTS, found=119)) == "upheld"
    assert material(20, 200)
    assert not material(0, 0)


def test_a_stated_claim_that_holds_is_not_called_false_by_a_gap_of_its_attack():
    modest = replace(
        FACTS, stated=0.2, found=60, fired={"saturated_loss": "masking"}, answered=frozenset(["saturated_loss"])
    )
    blinded = Tried(cause="saturation", name="rescaled logits", attempted=120, witnesses=60, reachable=60)
    judgement = judge(modest, findings([blinded], modest.fired))
    assert judgement.verdict == "upheld"
    assert "blinded" in judgement.reasons[-1]


def test_what_repetition_breaks_as_often_is_no_masking_cause():
    fired = {"saturated_loss": "masking"}
    facts = replace(FACTS, found=110, fired=fired)
    rescaled = Tried(cause="saturation", name="rescaled logits", attempted=60, witnesses=7, reachable=10)
    restarts = Tried(cause="restarts", name="5 random starts", attempted=60, witnesses=7, reachable=10)
    assert verdict(facts, rescaled) == "obfuscated"
    assert verdict(facts, rescaled, restarts) == "overstated"
    assert verdict(facts, rescaled, replace(restarts, witnesses=3)) == "obfuscated"


def test_overstated_does_not_acquit_a_model_whose_gradients_cannot_be_trusted():
    facts = replace(FACTS, found=80, fired={"zero_gradient": "masking"})
    assert "cannot be trusted" in judge(facts, findings([SCORE], facts.fired)).reasons[-1]
    assert "better attack" in judge(replace(facts, fired={}), findings([SCORE], {})).reasons[-1]


@pytest.mark.parametrize(("stated", "expected"), [(0.62, "upheld"), (0.95, "overstated")])
def test_a_stated_claim_is_held_against_the_interval(stated: float, expected: str):
    assert verdict(replace(FACTS, stated=stated)) == expected


def test_invalid_and_random_models_are_undecided_even_with_witnesses():
    found = replace(FACTS, found=2)
    assert verdict(replace(found, fired={"non_finite": "invalid"}), GRID) == "undecided"
    assert verdict(replace(found, fired={"randomness": "masking"}), GRID) == "undecided"
    assert verdict(replace(FACTS, n=0, measured=0, found=0)) == "undecided"


def test_masking_causes_that_are_shown_come_first_then_the_share():
    fired = {"grid_gradient": "masking"}
    more_score = replace(SCORE, witnesses=118)
    names = [cause.name for cause in findings([more_score, GRID], fired)]
    assert names == ["grid", "score"]
    assert [cause.name for cause in findings([more_score, GRID], {})] == ["score", "grid"]


def test_one_finding_a_cause_by_its_best_intervention():
    other = Tried(cause="grid", name="weak", attempted=120, witnesses=3, reachable=118)
    found = findings([other, GRID], {"grid_gradient": "masking"})
    assert [(cause.name, cause.intervention) for cause in found] == [("grid", "frozen grid")]


def test_every_confirming_check_exists():
    from verigrad.auditing.health import CHECKS, finite_difference_in_attack

    names = {check.__name__ for check in (*CHECKS, finite_difference_in_attack)}
    for cause in CAUSES.values():
        assert set(cause.confirmed_by) <= names, cause.name
        assert bool(cause.confirmed_by) == (cause.kind == "masking")


def test_the_escalation_grows_and_is_never_weaker_than_the_claim():
    from verigrad.attacks.pgd import PGD
    from verigrad.auditing.claim import Budget
    from verigrad.auditing.escalation import rounds

    work = [one.attack.steps * one.attack.restarts for one in rounds(PGD(), None, Budget(), classes=10)]
    assert work == [50, 100, 100, 200, 200, 400]
    strong = rounds(PGD(steps=1000, restarts=20), None, Budget(), classes=2)
    assert min(one.attack.steps for one in strong) == 1000
    assert min(one.attack.restarts for one in strong) == 20
    assert {one.attack.score for one in strong} == {"margin", "cross_entropy"}


@pytest.mark.parametrize(
    ("change", "answered"),
    [(None, set()), ("FrozenGrid", {"grid_gradient", "cross_gradient"}), ("IdentityBackward", {"zero_gradient"})],
)
def test_only_what_the_escalation_repaired_is_answered(change: str | None, answered: set[str]):
    from verigrad.attacks import changes, solver_aware
    from verigrad.auditing.course import _answered

    made = getattr(solver_aware, change, None) or getattr(changes, change) if change else None
    found = _answered(made() if made else None)
    assert answered | {"saturated_loss"} <= found
    assert "float64" not in found
    assert ("grid_gradient" in found) == (change == "FrozenGrid")


def test_the_rules_need_no_torch():
    code = "import sys; import verigrad.auditing.verdict; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_limits_are_the_documented_ones():
    assert (MATERIAL, FEWEST, EXPLAINS, EXCEEDS) == (0.005, 3, 0.5, 2.0)
