"""What the page of certificates says is what the ledger holds, and a witness inside a radius is never lost."""

import io
import json
import math

import pytest
from certified_runs import build, note
from drawings import SVG, parsed
from rich.console import Console
from test_html import Reader

from verigrad.ledger.errors import LedgerError
from verigrad.reports.certified import as_dict
from verigrad.reports.certified_figure import certified_figure
from verigrad.reports.certified_gathering import gather_certificates
from verigrad.reports.certified_page import certified_page, write_certificates
from verigrad.reports.certified_table import certified_table, contradicted, feet
from verigrad.reports.figures import NARROW, WIDE

HALVES = [note("interval", [0.1, 0.3]), note("interval", [0.0, 0.2], first=2)]


def test_parts_are_put_together(tmp_path):
    found = gather_certificates(build(tmp_path, HALVES))
    (row,) = found.rows
    assert [row.radius[i] for i in range(4)] == [0.1, 0.3, 0.0, 0.2]
    assert (row.forwards, row.backwards, row.certified) == (8, 4, 3)
    assert row.mean == pytest.approx(0.15)
    assert row.median == pytest.approx(0.15)
    assert [row.share(r) for r in (0.0, 0.1, 0.2, 0.3, 0.31)] == [0.75, 0.75, 0.5, 0.25, 0.0]
    assert row.facts == {"lipschitz": 2.0}


def test_a_certificate_that_was_cut_off_is_left_out(tmp_path):
    build(tmp_path / "a", [HALVES[0], note("clever", [0.1] * 4)])
    assert [row.label for row in gather_certificates(tmp_path / "a").rows] == ["clever"]
    build(tmp_path / "b", HALVES[:1])
    with pytest.raises(LedgerError, match="same command again"):
        gather_certificates(tmp_path / "b")


def test_an_error_inside_a_radius_contradicts_it(tmp_path):
    errors = {"fmn": {0: 0.2, 1: 0.25, 2: 0.1, 3: 0.2}, "boundary": {1: 0.28}}
    found = gather_certificates(build(tmp_path, HALVES, errors))
    (row,) = found.rows
    assert row.contradictions is not None
    ((sample, radius, distance, attack),) = row.contradictions
    assert (sample, radius, attack) == (1, 0.3, "fmn:full")
    assert distance == pytest.approx(0.25, abs=1e-6)
    assert row.compared == 3
    assert row.allowed == 0
    assert row.broken_promise()
    assert contradicted(row) == "1 of 3"
    assert any("fault of verigrad" in sentence for sentence in feet(found))
    # The rim itself is no contradiction: sample 3 has an error exactly at its radius.
    assert found.reach[3] == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(("alpha", "promise"), [(0.2, True), (0.4, False)])
def test_a_probabilistic_certificate_may_be_wrong_at_its_rate(tmp_path, alpha, promise):
    notes = [note("smoothing", [0.3] * 4, honesty="probabilistic", alpha=alpha)]
    (row,) = gather_certificates(build(tmp_path, notes, {"fmn": {0: 0.1}})).rows
    assert row.allowed == math.floor(4 * alpha)
    assert row.broken_promise() is promise


def test_an_estimate_promises_nothing(tmp_path):
    notes = [note("omega-bound", [0.3] * 4, honesty="estimate")]
    found = gather_certificates(build(tmp_path, notes, {"fmn": dict.fromkeys(range(4), 0.1)}))
    assert found.rows[0].allowed is None
    assert not found.rows[0].broken_promise()
    assert contradicted(found.rows[0]) == "4 of 4"
    assert any("An estimate can be wrong" in sentence for sentence in feet(found))


def test_errors_of_the_model_say_nothing_of_the_smoothed_model(tmp_path):
    notes = [note("smoothing", [0.3] * 4, subject="smoothed model", honesty="probabilistic", alpha=0.001)]
    found = gather_certificates(build(tmp_path, notes, {"fmn": {0: 0.1}}))
    assert found.rows[0].contradictions is None
    assert not found.rows[0].broken_promise()
    assert any("certifies the smoothed model" in sentence for sentence in feet(found))


def test_an_error_that_needs_its_batch_contradicts_nothing(tmp_path):
    found = gather_certificates(build(tmp_path, HALVES, {"fmn": {1: 0.1}}, alone=False))
    assert found.rows[0].contradictions == ()
    assert found.reach == {}


def test_errors_of_other_runs_are_compared_if_they_are_of_the_same_model(tmp_path):
    build(tmp_path / "own", HALVES)
    build(tmp_path / "other", [], {"pgd": {1: 0.2}})
    build(tmp_path / "strange", [], {"pgd": {1: 0.2}}, weights="v")
    found = gather_certificates(tmp_path / "own", [tmp_path / "other"])
    assert len(found.rows[0].contradictions or ()) == 1
    assert found.attacks == ("pgd:full",)
    with pytest.raises(LedgerError, match="weights_sha256 is v"):
        gather_certificates(tmp_path / "own", [tmp_path / "strange"])


def test_what_the_attacks_left_falls_at_each_error(tmp_path):
    found = gather_certificates(build(tmp_path, HALVES, {"fmn": {0: 0.1, 1: 0.25, 3: 0.4}}, wrong=(3,)))
    # Sample 3 is wrong as it is: its error counts for nothing.
    assert [found.left(r) for r in (0.0, 0.2, 0.3, 1.0)] == [0.75, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_distances_are_in_the_norm_of_the_certificates(tmp_path, norm):
    notes = [note("interval", [0.3] * 4, norm=norm)]
    found = gather_certificates(build(tmp_path, notes, {"fmn": {0: 0.25}}, norm=norm))
    assert found.reach[0] == pytest.approx(0.25, abs=1e-6)


def test_the_table_fits_into_80_columns(tmp_path):
    long = "smoothing:sigma=0.25,radii=(0,0.25,0.5),test=betting"
    smooth = note(long, [0.3] * 4, honesty="probabilistic", alpha=0.001, forwards=[100_100] * 4)
    found = gather_certificates(build(tmp_path, [*HALVES, smooth], {"fmn": {0: 0.4}}))
    told = io.StringIO()
    Console(file=told, width=80).print(certified_table(found))
    assert max(map(len, told.getvalue().splitlines())) <= 80
    for word in ("probabilistic", "sound", "100,100 + 1", "0 of 1"):
        assert word in told.getvalue()
    assert "…" not in told.getvalue()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_stairs_go_through_the_shares(tmp_path, width):
    found = gather_certificates(build(tmp_path, HALVES, {"fmn": {0: 0.4}}))
    root = parsed(certified_figure(found, width, "c"))
    rules = sorted(float(one.attrib["y1"]) for one in root.iter(f"{SVG}line") if one.attrib["class"] == "rule")
    top, bottom = rules[0], rules[-1]
    lines = [one for one in root.iter(f"{SVG}polyline") if "series" in one.attrib["class"]]
    stairs = max(lines, key=lambda one: len(one.attrib["points"]))
    heights = [float(pair.split(",")[1]) for pair in stairs.attrib["points"].split()]
    shares = [(bottom - y) / (bottom - top) for y in heights]
    assert [round(share, 2) for share in dict.fromkeys(shares)] == [0.75, 0.5, 0.25, 0.0]


def test_the_page_and_the_numbers_say_all(tmp_path):
    hostile = note("smoothing", [0.3] * 4, assumptions=["<script>alert(1)</script>"], honesty="estimate")
    folder = build(tmp_path / "run", [*HALVES, hostile], {"fmn": {1: 0.25}})
    found = gather_certificates(folder)
    written = write_certificates(found, folder)
    numbers = json.loads(written.numbers.read_text())
    assert numbers == json.loads(json.dumps(as_dict(found)))
    assert [one["honesty"] for one in numbers["certificates"]] == ["sound", "estimate"]
    page = certified_page(found, folder="run")
    assert written.page.read_text(encoding="utf-8") == page
    assert "<script>alert" not in page
    seen = " ".join(Reader(page).seen)
    for word in ("interval", "smoothing", "verigrad verify run", found.seal, "1 of 1"):
        assert word in seen
