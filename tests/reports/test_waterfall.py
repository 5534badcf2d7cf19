"""The waterfall: well-formed, accessible, inside its frame, and right about the numbers."""

import math

import pytest
from drawings import SVG, parsed, rects

from verigrad.reports import svg
from verigrad.reports.figures import NARROW, WIDE
from verigrad.reports.waterfall import Step, waterfall


def steps(**changes):
    first = Step("claim", "claim", 0.6, 0.6, 76, 196, "hover 1")
    second = Step("intervention", "frozen <grid> & more", 0.1, 0.1, 100, 120, "hover <2>")
    return [first, second._replace(**changes)]


def falls(width, **changes):
    kinds = {"clean": 0.98, "claimed": 0.6, "claim_text": "60 %", "n": 200, "width": width, "name": "w"} | changes
    return parsed(waterfall(kinds.pop("steps", steps()), **kinds))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_figures_speak_to_those_who_do_not_see_them(width):
    root = falls(width)
    assert root.attrib["role"] == "img"
    named = {child.attrib["id"] for child in root if child.tag in (f"{SVG}title", f"{SVG}desc")}
    assert set(root.attrib["aria-labelledby"].split()) == named
    assert "10 %" in root.find(f"{SVG}desc").text


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_strong_end_of_a_bar_is_what_the_attack_broke(width):
    root = falls(width)
    full = float(rects(root, "track")[0].attrib["width"])
    assert float(rects(root, "lost")[1].attrib["width"]) == pytest.approx(0.5 * full, abs=0.2)
    assert float(rects(root, "left")[2].attrib["width"]) == pytest.approx(0.1 * full, abs=0.2)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("claimed", [0.0, 0.5, 1.0])
def test_everything_stays_inside_the_frame(width, claimed):
    root = falls(width, claimed=claimed, steps=steps(name="a name that is far too long for any column " * 3))
    _, _, right, bottom = map(float, root.attrib["viewBox"].split())
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.attrib["x"]) >= 0
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= right
        assert float(rect.attrib["y"]) + float(rect.attrib["height"]) <= bottom
    for text in root.iter(f"{SVG}text"):
        room = svg.extent(text.text or "")
        start = float(text.attrib["x"]) - {"start": 0, "middle": room / 2, "end": room}[text.attrib["text-anchor"]]
        assert start >= -1
        assert start + room <= right + 1
        assert float(text.attrib["y"]) <= bottom


def test_a_pointer_is_told_everything_of_a_row():
    titles = [title.text for title in falls(880).iter(f"{SVG}title")]
    assert "hover <2>" in titles


def test_what_is_missing_draws_no_bar_and_prints_no_number():
    root = falls(880, clean=None, claimed=None, claim_text="—", steps=steps(remaining=math.nan, alone=None))
    text = " ".join(element.text or "" for element in root.iter())
    assert "nan" not in text.lower()
    assert "None" not in text
    assert len(rects(root, "left")) == 1


def test_an_attack_with_nothing_left_to_try_says_so():
    root = falls(880, steps=steps(attempted=0, added=0))
    assert "idle" in [text.text for text in root.iter(f"{SVG}text")]
