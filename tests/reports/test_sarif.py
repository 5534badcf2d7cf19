"""The SARIF log against the structure that SARIF 2.1.0 requires (OASIS, sections 3.13, 3.14, 3.19, 3.27, 3.49)."""

import json
import re

import pytest
from scenes import SCENES

from verigrad.reports.write import write_sarif

LEVELS = {"none", "note", "warning", "error"}


def check(log):
    """Raises where a required property is missing, or one has a value that the standard does not admit."""
    assert set(log) <= {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        assert isinstance(driver["name"], str)
        rules = driver["rules"]
        assert len({rule["id"] for rule in rules}) == len(rules)
        assert all(rule["shortDescription"]["text"] for rule in rules)
        for result in run["results"]:
            assert result["message"]["text"]
            assert result["level"] in LEVELS
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result.get("kind", "fail") == "fail" or result["level"] == "none"
            (place,) = result["locations"]
            artifact = place["physicalLocation"]["artifactLocation"]
            assert run["artifacts"][artifact["index"]]["location"]["uri"] == artifact["uri"]
            assert place["physicalLocation"]["region"]["startLine"] >= 1
            assert all(isinstance(value, str) for value in result["partialFingerprints"].values())


def log_of(drawn, tmp_path, name):
    return json.loads(write_sarif(drawn(name), tmp_path / "audit.sarif").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCENES)
def test_the_log_has_the_required_structure(drawn, tmp_path, name):
    check(log_of(drawn, tmp_path, name))


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log.pop("version"),
        lambda log: log["runs"][0]["tool"].pop("driver"),
        lambda log: log["runs"][0]["results"][0].pop("message"),
        lambda log: log["runs"][0]["results"][0].update(level="fatal"),
        lambda log: log["runs"][0]["results"][0].update(ruleIndex=1),
    ],
)
def test_the_check_sees_damage(drawn, tmp_path, damage):
    log = log_of(drawn, tmp_path, "obfuscated")
    damage(log)
    with pytest.raises((AssertionError, KeyError)):
        check(log)


def test_obfuscated_is_an_error_with_its_causes(drawn, tmp_path):
    (run,) = log_of(drawn, tmp_path, "obfuscated")["runs"]
    levels = {result["ruleId"]: result["level"] for result in run["results"]}
    assert levels["verdict/obfuscated"] == "error"
    assert levels["cause/grid"] == "error"
    assert "cause/no_derivative" not in levels, "a cause that is not confirmed is no finding"
    assert levels["health/cross_gradient"] == "warning"
    assert levels["health/batch_mates"] == "note"
    assert re.search(r"found 0 % \(95 % interval 0–2 %, n = 200\)", run["results"][0]["message"]["text"])


def test_upheld_raises_no_alert_but_keeps_its_verdict(drawn, tmp_path):
    (run,) = log_of(drawn, tmp_path, "upheld")["runs"]
    assert run["results"] == []
    assert run["properties"]["verdict"] == "upheld"


def test_undecided_is_a_warning(drawn, tmp_path):
    (run,) = log_of(drawn, tmp_path, "undecided")["runs"]
    assert run["results"][0]["level"] == "warning"


def test_fingerprints_do_not_depend_on_the_numbers(drawn, tmp_path):
    first, second = (log_of(drawn, tmp_path, name)["runs"][0]["results"] for name in ("obfuscated", "overstated"))
    prints = [result["partialFingerprints"]["verigrad/v1"] for result in first]
    assert len(set(prints)) == len(prints)
    assert first[0]["partialFingerprints"] != second[0]["partialFingerprints"]
