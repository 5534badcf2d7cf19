"""Pages: the paper's layout, the same text from the same files, and the committed pages are those of the committed
results."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from verigrad.papers import figures
from verigrad.papers.gradient_regularization import TABLE1_IMAGENET, TABLE2_IMAGENET
from verigrad.papers.pages import PAPERS, draw, page
from verigrad.papers.pages_tables import blocks, reasons, shown, written
from verigrad.papers.table import Table

DOCS = Path(__file__).parents[2] / "docs" / "papers"
TINY = Table(
    id="sonet/tiny", title="A table", protocol="CIFAR-10", keys=("net",), columns=("clean %", "d"), text="a : 1 | 2"
)


def cell(row: tuple[str, ...], column: str, printed: Any, ours: Any, status: str = "match") -> dict[str, Any]:
    measured = {"value": ours, "low": ours - 1, "high": ours + 1, "n": 10} if isinstance(ours, float) else ours
    return {
        "table": "sonet/tiny",
        "row": list(row),
        "column": column,
        "printed": printed,
        "ours": measured,
        "band": 5.0,
        "status": status,
        "reason": "" if status == "match" else "fewer epochs",
        "protocol": "digits",
    }


def curve(name: str, x: list[float], y: list[float], **more: Any) -> dict[str, Any]:
    axes = {"x_label": "eps", "y_label": "accuracy %", "points": False}
    return {"table": "sonet/tiny", "figure": "A figure", "name": name, "x": x, "y": y, **axes, **more}


def told(**more: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "id": "sonet/table1",
        "title": "a title",
        "scale": "cpu",
        "cells": [],
        "findings": [],
        "series": [],
        "seconds": 60.0,
        "command": "verigrad reproduce sonet/table1 --scale cpu",
        "machine": "a machine",
        "versions": {"torch": "2"},
        **more,
    }


def test_a_cell_shows_both_numbers_the_interval_and_the_status() -> None:
    assert shown(cell(("a",), "clean %", 1.0, 3.25)) == "1 → **3.2** =<br><sub>2.2 to 4.2</sub>"
    assert shown(cell(("a",), "d", 0.055, 3.25, "differs")).startswith("0.055 → **3.25** ≠")
    assert shown(cell(("a",), "d", 2.0, None, "not run")) == "2 → not run –"
    assert shown(cell(("a",), "extra", None, 3.25)).startswith("**3.25**<br>")
    assert shown(cell(("a",), "times", [0.0, 0.26, 1.0], [0.0, 0.2, 1.0])) == "0 0.26 1 → **0 0.2 1** ="


def test_a_table_has_the_papers_rows_and_columns_and_then_what_it_lacks() -> None:
    cells = [
        cell(("a",), "new", None, 5.0),
        cell(("a",), "clean %", 1.0, 1.0),
        cell(("a",), "more", None, 7.0),
        cell(("a",), "d", 2.0, None, "not run"),
        cell(("b", "c"), "x", None, 4.0),
    ]
    first, *others = blocks(cells, [TINY])
    lines = written(first)
    assert lines[0] == "| net | clean % | d | *more* |"
    assert lines[2].startswith("| a | 1 → **1.0** =")
    assert len(others) == 2
    assert [tuple(block.rows) for block in others] == [(("a",),), (("b", "c"),)]
    assert reasons(cells) == ["- `–` 1 cell not run: fewer epochs."]


def test_two_tables_of_one_id_share_neither_rows_nor_columns() -> None:
    tables = (TABLE1_IMAGENET, TABLE2_IMAGENET)
    cells = [cell(one.row, one.column, one.printed, None, "not run") for table in tables for one in table.cells()]
    found = blocks(cells, tables)
    assert [block.table for block in found] == list(tables)
    assert [sum(map(len, block.rows.values())) for block in found] == [18, 15]
    assert all(len(written(block)) == 5 for block in found)


def test_a_claim_stands_where_it_belongs() -> None:
    claims = [
        {"table": "", "claim": "It holds", "holds": True, "evidence": "1 %", "reason": "", "status": "match"},
        {"table": "", "claim": "It fails", "holds": False, "evidence": "2 %", "reason": "Why", "status": "differs"},
    ]
    text = page("A paper", [TINY], [told(findings=claims)])
    agrees, differs = text.index("## What agrees"), text.index("## What differs")
    assert agrees < text.index("- It holds (1 %).") < differs < text.index("- It fails (2 %). Why.")
    assert "Not run." in text  # sonet/tiny has no file


def test_a_figure_is_the_same_svg_each_time_and_draws_every_curve() -> None:
    curves = [curve("one", [0.0, 1.0], [10.0, 20.0]), curve("two", [0.0, 1.0], [30.0, 5.0])]
    text = figures.drawn(curves)
    assert text == figures.drawn(curves)
    assert not re.search(r"<dc:date>|Matplotlib v", text)
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    words = {"".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")}
    assert {"A figure", "eps", "accuracy %", "one", "two"} <= words
    assert all(colour.lower() in text.lower() for colour in figures.COLOURS[:2])
    assert text != figures.drawn(curves[:1])


def test_an_axis_over_decades_is_logarithmic_and_another_is_not() -> None:
    assert "10^{-4}" not in figures.drawn([curve("h", [0.1, 0.5, 1.0], [1.0, 2.0, 3.0])])
    wide = figures.drawn([curve("h", [1e-4, 1e-2, 1.0], [1.0, 2.0, 3.0])])
    assert "10^{-4}" in wide


def test_the_complex_plane_has_the_unit_circle_once() -> None:
    axes = {"x_label": "real part", "y_label": "imaginary part"}
    points = curve("net", [0.1, -0.4], [0.2, 0.0], points=True, **axes)
    own = curve("unit circle", [1.0, 0.0], [0.0, 1.0], **axes)
    for curves in ([points], [own, points]):
        assert figures.drawn(curves).count(">unit circle<") == 1
    flow = {"x_label": "Re λ", "y_label": "Im λ"}  # bounded by the imaginary axis
    assert "unit circle" not in figures.drawn([curve("net", [-0.1, 0.0], [9.0, 0.0], points=True, **flow)])


def test_a_figures_of_the_paper_and_ours_share_a_colour() -> None:
    text = figures.drawn([curve("e, ours", [0.0, 1.0], [1.0, 2.0]), curve("e, paper", [0.0, 1.0], [3.0, 4.0])])
    assert figures.COLOURS[0].lower() in text
    assert figures.COLOURS[1].lower() not in text


def test_drawing_writes_pages_and_figures_and_takes_old_figures_away(tmp_path: Path) -> None:
    (tmp_path / "results" / "cpu").mkdir(parents=True)
    file = tmp_path / "results" / "cpu" / "sonet-table1.json"
    file.write_text(json.dumps(told(series=[curve("one", [0.0, 1.0], [1.0, 2.0])])))
    out = tmp_path / "out"
    (out / "notes").mkdir(parents=True)
    (out / "notes" / "sonet.md").write_text("# The title\n\nSee [m](../../math/x.md).\n")
    first = {path: path.read_bytes() for path in draw(tmp_path / "results", out)}
    assert {path.name for path in first} == {*(f"{paper}.md" for paper in PAPERS), "sonet-table1-a-figure-cpu.svg"}
    text = (out / "sonet.md").read_text()
    assert text.startswith("# The title\n")
    assert "See [m](../math/x.md)." in text
    assert {path: path.read_bytes() for path in draw(tmp_path / "results", out)} == first
    file.write_text(json.dumps(told()))
    draw(tmp_path / "results", out)
    assert not list((out / "figures").iterdir())


@pytest.mark.skipif(not list(DOCS.glob("results/*/*.json")), reason="no results are committed")
def test_the_committed_pages_are_drawn_from_the_committed_results(tmp_path: Path) -> None:
    made = draw(DOCS / "results", tmp_path, DOCS / "notes")
    for path in made:
        there = DOCS / path.relative_to(tmp_path)
        assert there.exists(), f"{there} is missing. Draw it: make papers"
        if path.suffix == ".md":
            assert there.read_bytes() == path.read_bytes(), f"{there} is not what is drawn. Draw it: make papers"
    drawn = {path.name for path in made if path.suffix == ".svg"}
    assert {path.name for path in (DOCS / "figures").glob("*.svg")} == drawn
