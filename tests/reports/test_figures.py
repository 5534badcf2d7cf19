"""Accuracies side by side, as drawn."""

import math

import pytest
from drawings import SVG, parsed, rects

from verigrad.reports import figures, svg


def test_bars_carry_interval_and_gap():
    rows = [figures.Bar("claimed", 0.6, "60 %", "claimed"), figures.Bar("found", 0.1, "10 %", "found", 0.05, 0.15)]
    gap = figures.Gap(0.1, 0.6, "gap 50 points", "obfuscated", 1)
    root = parsed(figures.bars(rows, width=880, name="b", gap=gap))
    (band,) = rects(root, "gap")
    claimed, found = rects(root, "bar")
    grown = float(claimed.attrib["width"]) - float(found.attrib["width"])
    assert float(band.attrib["width"]) == pytest.approx(grown, abs=0.2)
    whiskers = [line for line in root.iter(f"{SVG}line") if line.attrib["class"] == "whisker"]
    per_share = float(claimed.attrib["width"]) / 0.6
    assert float(whiskers[0].attrib["x2"]) - float(whiskers[0].attrib["x1"]) == pytest.approx(0.1 * per_share, abs=0.2)
    assert "gap 50 points" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_strip_without_numbers_is_an_empty_track():
    root = parsed(
        figures.strip(claimed=None, found=math.nan, low=None, high=None, name="s", look="upheld", desc="none")
    )
    assert len(rects(root, "track")) == 1
    assert not list(root.iter(f"{SVG}circle"))


def test_shorten_keeps_what_fits():
    assert svg.shorten("frozen grid", 300) == "frozen grid"
    assert svg.shorten("x" * 100, 100).endswith("…")
    assert svg.extent(svg.shorten("x" * 100, 100)) <= 100
