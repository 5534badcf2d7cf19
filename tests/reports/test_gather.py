"""What the reports read out of a ledger."""

import json

import numpy as np
import pytest

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger
from verigrad.reports.summary import Line, choose, gap_text, gather, in_words, main_cause, summary_of
from verigrad.reports.words import GLOSSARY


@pytest.fixture
def ledger(drawn):
    with Ledger.read(drawn("obfuscated") / "ledger.sqlite") as opened:
        yield opened


def line(sample, label=0, attack="pgd", alone=True):
    return Line(sample, label, label, 1.0, "later", attack, 0.1, 1, alone)


def test_every_sample_has_one_line_that_agrees_with_the_counts(ledger):
    material = gather(ledger)
    summary = material.summary
    assert [entry.sample for entry in material.lines] == list(range(summary["n"]))
    broken = [entry for entry in material.lines if entry.attack is not None]
    assert len(broken) == material.witnesses == sum(attack["added"] for attack in summary["attacks"])
    wrong = sum(entry.state == "wrong" for entry in material.lines)
    assert summary["n"] - wrong - len(broken) == round(summary["found"] * summary["n"])


def test_a_sample_belongs_to_the_first_attack_that_broke_it(ledger):
    material = gather(ledger)
    for attack in material.summary["attacks"]:
        assert sum(entry.attack == attack["name"] for entry in material.lines) == attack["added"]
    assert all((entry.state == "claim") == (entry.attack == "claim") for entry in material.lines)


def test_proofs_are_the_stored_images(ledger):
    material = gather(ledger, shown=5)
    assert len(material.proofs) == 5
    for proof in material.proofs:
        stored = [witness.x_adv for witness in ledger.witnesses(proof.line.sample)]
        assert any(np.array_equal(proof.x_adv, x_adv) for x_adv in stored)
        assert np.array_equal(proof.image, ledger.image(proof.line.sample))
        assert np.abs(proof.x_adv - proof.image).max() == pytest.approx(proof.line.distance)
    assert material.scale == pytest.approx(0.12, abs=1e-6)


def test_the_choice_shows_every_attack_and_label_first():
    lines = [line(i, label=i % 5, attack="big") for i in range(50)] + [
        line(50 + i, label=i, attack="small") for i in range(2)
    ]
    chosen = choose(lines, 8)
    assert len(chosen) == 8
    assert {entry.attack for entry in chosen} == {"big", "small"}
    assert {entry.label for entry in chosen} == {0, 1, 2, 3, 4}
    assert chosen == choose(list(reversed(lines)), 8)


def test_witnesses_that_stand_alone_come_first():
    assert choose([line(0, alone=False), line(1, alone=True)], 1) == [line(1, alone=True)]


def test_without_witnesses_there_is_nothing_to_choose():
    assert choose([], 24) == []


def test_main_cause_is_a_label(ledger):
    assert main_cause(summary_of(ledger)) == "gradient through the batch-coupled step size"
    assert main_cause({"main_cause": None, "causes": []}) is None


def test_an_unfinished_audit_is_said_in_one_line(tmp_path):
    with (
        Ledger.create_or_resume(tmp_path / "ledger.sqlite", {"model": "m"}) as ledger,
        pytest.raises(LedgerError) as caught,
    ):
        summary_of(ledger)
    assert "Run the same audit again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_format_is_refused(tmp_path):
    with Ledger.create_or_resume(tmp_path / "ledger.sqlite", {"model": "m"}) as ledger:
        ledger.put_summary({"format": 99})
        with pytest.raises(LedgerError, match="format 99"):
            summary_of(ledger)


def test_numbers_that_are_not_finite_become_null():
    class Stored:
        def summary(self):
            return {
                "format": 1,
                "found": float("nan"),
                "interval": [0.0, float("inf")],
                "causes": [{"share": float("nan")}],
            }

    told = summary_of(Stored())  # type: ignore[arg-type]
    assert (
        json.dumps(told, allow_nan=False)
        == '{"format": 1, "found": null, "interval": [0.0, null], "causes": [{"share": null}]}'
    )


def test_the_sign_of_the_margin_is_the_one_the_glossary_names(ledger):
    assert "positive where misclassified" in dict(GLOSSARY)["margin"]
    assert all((entry.state == "wrong") == ((entry.margin or 0) > 0) for entry in gather(ledger).lines)


@pytest.mark.parametrize(
    ("claimed", "found", "stated", "n", "told"),
    [
        (0.705, 0.075, None, 200, "62 points"),  # 70 % and 8 % are printed
        (0.705, 0.085, None, 200, "62 points"),  # 70 % and 8 %
        (0.7, 0.0, None, 200, "70 points"),
        (0.7, 0.7, None, 200, "0 points"),
        (0.704, 0.696, None, 500, "<1 point"),  # 70 % twice
        (0.6237, 0.084, 0.6237, 200, "54 points"),
        (0.6, 0.7, 0.6, 200, "−10 points"),
        (0.7046, 0.0851, None, 2000, "62.0 points"),  # 70.5 % and 8.5 %
        (0.705, 0.002, None, 500, "70 points"),  # <1 % is no number to subtract
        (None, None, None, 200, "—"),
    ],
)
def test_the_gap_is_the_difference_of_the_numbers_beside_it(claimed, found, stated, n, told):
    gap = None if claimed is None else claimed - found
    summary = {"claimed": claimed, "found": found, "claim": {"stated": stated}, "gap": gap, "n": n}
    assert gap_text(summary) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "float64 breaks 4 of 9; health agrees (float64, coherence).",
            "float64 breaks 4 of 9; health agrees (“the same in float64”, “it keeps its direction” do not hold).",
        ),
        ("not trusted (coherence fired), but", "not trusted (“it keeps its direction” does not hold), but"),
        ("cannot be judged: coherence fired.", "cannot be judged: “it keeps its direction” does not hold."),
        ("not trusted: coherence, float64 of 3.", "not trusted: coherence, float64 of 3."),
        ("no health check agrees (shattering).", "no health check agrees (shattering)."),
    ],
)
def test_health_checks_are_told_by_their_labels(text, told):
    health = [
        {"name": "coherence", "label": "it keeps its direction"},
        {"name": "float64", "label": "the same in float64"},
    ]
    assert in_words(text, {"health": health}) == told
    assert in_words(text, {"health": []}) == text
