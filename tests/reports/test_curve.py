"""What a curve says is what the ledgers of its levels hold."""

import json
import math

import pytest
from curves import Run, build
from test_html import Reader

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.statistics import clopper_pearson
from verigrad.reports.curve import as_dict, feet
from verigrad.reports.curve_gathering import gather_curve, level_folders
from verigrad.reports.curve_page import curve_page, write_curve


def test_a_budget_attack_counts_from_the_level_that_broke_it_on(tmp_path):
    levels = {
        "0.1": [Run("pgd", {0: 0.1, 1: None, 2: None, 3: None})],
        "0.2": [Run("pgd", {1: 0.19, 2: None, 3: None})],
        "0.3": [Run("pgd", {2: 0.3, 3: None})],
    }
    curve = gather_curve(build(tmp_path, levels, labels=(0, 1, 2, 3, 4), wrong=(4,)))
    (row,) = curve.rows
    assert row.broken == (1, 2, 3)
    assert curve.worst == row.broken
    assert (curve.n, curve.correct) == (5, 4)
    assert [curve.accuracy(broken) for broken in (0, *curve.worst)] == [0.8, 0.6, 0.4, 0.2]
    assert curve.interval(2) == clopper_pearson(2, 5)
    assert (row.forwards, row.backwards) == (27, 18)
    assert row.missed == 0
    assert feet(curve) == []


def test_a_minimal_attack_is_told_by_its_distances(tmp_path):
    far = {0: 0.05, 1: 0.15, 2: 0.2, 3: 0.20001, 4: None}
    levels = {"0.1": [], "0.2": [], "0.3": [Run("fmn", far, kind="minimal", once=True)]}
    (row,) = gather_curve(build(tmp_path, levels, labels=range(5))).rows
    assert row.broken == (1, 3, 4)
    assert row.missed == 0


def test_what_rounding_puts_outside_counts_at_the_level_that_judged_it(tmp_path):
    levels = {"0.1": [Run("pgd", {0: 0.1 + 1e-9, 1: None})], "0.2": [Run("pgd", {1: 0.2 + 1e-9})]}
    assert gather_curve(build(tmp_path, levels)).worst == (1, 2)


def test_a_small_change_found_late_counts_early_and_is_told(tmp_path):
    levels = {
        "0.1": [Run("pgd", {0: None, 1: None})],
        "0.2": [Run("pgd", {0: 0.07, 1: None})],
        "0.3": [Run("pgd", {1: 0.15})],
    }
    curve = gather_curve(build(tmp_path, levels))
    assert curve.rows[0].broken == (1, 2, 2)
    assert curve.rows[0].missed == 2
    (told,) = feet(curve)
    assert "at a larger eps only" in told
    assert "pgd (2)" in told


def test_in_a_joint_batch_the_level_counts_and_not_the_distance(tmp_path):
    levels = {"0.1": [Run("pgd", {0: None})], "0.2": [Run("pgd", {0: 0.01}, joint=True)]}
    curve = gather_curve(build(tmp_path, levels))
    assert curve.worst == (0, 1)
    assert feet(curve) == []


def test_the_worst_case_is_the_union(tmp_path):
    levels = {
        "0.1": [Run("pgd", {0: 0.1, 1: None, 2: None})],
        "0.2": [Run("pgd", {1: 0.2, 2: None}), Run("fmn", {0: None, 1: 0.05, 2: 0.2}, kind="minimal", once=True)],
    }
    curve = gather_curve(build(tmp_path, levels))
    assert {row.label: row.broken for row in curve.rows} == {"pgd": (1, 2), "fmn": (1, 2)}
    assert curve.worst == (2, 3)


def test_an_attack_that_was_cut_off_is_left_out(tmp_path):
    levels = {
        "0.1": [Run("pgd", {0: 0.1}), Run("apgd", {0: 0.1})],
        "0.2": [Run("pgd", {}), Run("apgd", {}, ended=False)],
    }
    assert [row.label for row in gather_curve(build(tmp_path / "half", levels)).rows] == ["pgd"]
    levels = {"0.1": [Run("pgd", {0: None}, ended=False)], "0.2": [Run("pgd", {0: 0.2})]}
    with pytest.raises(LedgerError, match="came to its end"):
        gather_curve(build(tmp_path / "none", levels))


def test_a_level_that_is_missing_or_of_another_run_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="no curve"):
        gather_curve(tmp_path)
    levels = {"0.1": [Run("pgd", {0: 0.1})], "1/4": [Run("pgd", {})]}
    folder = build(tmp_path / "curve", levels)
    assert level_folders(folder) == ["eps-0.1", "eps-1of4"]
    ledger = folder / "eps-1of4" / "ledger.sqlite"
    kept = ledger.read_bytes()
    ledger.unlink()
    with pytest.raises(LedgerError, match="eps-1of4"):
        gather_curve(folder)
    ledger.write_bytes(kept)
    assert gather_curve(folder).worst == (1, 1)
    ledger.write_bytes((build(tmp_path / "other", levels, seed=1) / "eps-1of4" / "ledger.sqlite").read_bytes())
    with pytest.raises(LedgerError, match="of one run") as caught:
        gather_curve(folder)
    assert "seed" in str(caught.value)


@pytest.mark.parametrize(("norm", "enough", "less"), [("linf", "0.5", "0.49"), ("l2", "1", "0.99"), ("l0", "4", "3")])
def test_where_all_images_can_be_alike_what_stands_is_counted(tmp_path, norm, enough, less):
    """Images of 2×2: a grey image is √(4·½²) = 1 away from a corner of the box at most."""
    labels = (0, 0, 0, 1, 1, 2)
    for label, told in ((enough, True), (less, False)):
        curve = gather_curve(
            build(tmp_path / label, {label: [Run("pgd", dict.fromkeys(range(6)))]}, norm=norm, labels=labels)
        )
        assert curve.ceiling == ((3,) if told else (None,))
        assert bool(feet(curve)) == told
    half = {i: float(enough) if i > 2 else None for i in range(6)}
    assert feet(gather_curve(build(tmp_path / "half", {enough: [Run("pgd", half)]}, norm=norm, labels=labels))) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two attacks at three levels, one written as a fraction, of a model with a hostile name."""
    levels = {
        "2/255": [Run("pgd", {i: 2 / 255 if i < 2 else None for i in range(9)})],
        "0.1": [Run("pgd", {i: 0.05 if i < 6 else None for i in range(2, 9)})],
        "0.5": [
            Run("pgd", {i: 0.4 if i < 8 else None for i in range(6, 9)}),
            Run("fmn", {i: 0.01 * (i + 1) for i in range(9)}, kind="minimal", once=True),
        ],
    }
    return build(tmp_path_factory.mktemp("curves") / "made up", levels, wrong=(9,), model="<b>net</b>")


def test_the_json_holds_every_number(made):
    written = write_curve(gather_curve(made), made)
    told = json.loads(written.numbers.read_text())
    assert told == as_dict(gather_curve(made))
    assert [level["label"] for level in told["levels"]] == ["2/255", "0.1", "0.5"]
    assert told["levels"][0]["eps"] == 2 / 255
    for one in (*told["attacks"], told["worst"]):
        assert one["accuracy"] == [(told["correct"] - broken) / told["n"] for broken in one["broken"]]
        assert sorted(one["broken"]) == one["broken"]
    assert "threat" not in told["identity"]
    assert all(not isinstance(share, float) or math.isfinite(share) for share in told["worst"]["accuracy"])


def test_the_page_is_one_file_and_says_every_number(made):
    text = curve_page(gather_curve(made), folder="made up")
    reader = Reader(text)
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert not {"src", "srcset", "onload"} & set(attributes)
        assert tag != "b"
        if tag == "a":
            assert str(attributes["href"]).startswith("#")
    assert "//" not in text.replace("// ", "")
    assert "<b>net</b>" in reader.text
    for said in ("worst case of all", "95 % interval", "2/255", "eps (Linf)", "accuracy", "pgd:full", "fmn:full"):
        assert said in reader.text
    for folder in ("eps-2of255", "eps-0.1", "eps-0.5"):
        assert f"verigrad verify 'made up'/{folder}" in reader.text
    assert all(level.seal in reader.text for level in gather_curve(made).levels)


def test_the_same_ledgers_give_the_same_files(made):
    first = write_curve(gather_curve(made), made)
    before = first.numbers.read_bytes(), first.page.read_bytes()
    again = write_curve(gather_curve(made), made)
    assert (again.numbers.read_bytes(), again.page.read_bytes()) == before
