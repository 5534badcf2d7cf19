"""The curve as drawn: lines through the numbers, a band around the worst case, axes that say what they show."""

import itertools
from pathlib import Path

import pytest
from curves import Run, build
from drawings import SVG, parsed

from verigrad.reports.curve_figure import curve_figure
from verigrad.reports.curve_gathering import gather_curve
from verigrad.reports.figures import NARROW, WIDE


def drawn(folder: Path, levels, width=WIDE, **named):
    curve = gather_curve(build(folder, levels, **named))
    return curve, parsed(curve_figure(curve, width, "c"))


def points(shape):
    return [tuple(map(float, pair.split(","))) for pair in shape.attrib["points"].split()]


def by_look(root, tag, look):
    return [shape for shape in root.iter(f"{SVG}{tag}") if look in shape.attrib.get("class", "").split()]


def plot_lines(root, look):
    """The lines of the plot, without the legend's short ones."""
    return [points(line) for line in by_look(root, "polyline", look) if len(points(line)) > 2]


def texts(root):
    return [text.text for text in root.iter(f"{SVG}text")]


LEVELS = {
    "0.1": [Run("pgd", {i: 0.1 if i < 3 else None for i in range(10)})],
    "0.3": [Run("pgd", {i: 0.3 if i < 8 else None for i in range(3, 10)})],
    "0.4": [
        Run("pgd", {8: None, 9: None}),
        Run("fmn", {i: 0.04 * (i + 1) for i in range(10)}, kind="minimal", once=True),
    ],
}


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_lines_go_through_the_accuracies(tmp_path, width):
    curve, root = drawn(tmp_path, LEVELS, width)
    quarters = sorted((float(line.attrib["y1"]) for line in by_look(root, "line", "rule")), reverse=True)
    zero, one = quarters[0], quarters[-1]
    lines = [*plot_lines(root, "worst"), *plot_lines(root, "series")]
    shares = [(0, *counts) for counts in (curve.worst, *(row.broken for row in curve.rows))]
    assert len(lines) == 3
    left, right = lines[0][0][0], lines[0][-1][0]
    for line, broken in zip(lines, shares, strict=True):
        for (x, y), eps, count in zip(line, (0, 0.1, 0.3, 0.4), broken, strict=True):
            assert x == pytest.approx(left + (right - left) * eps / 0.4, abs=0.1)
            assert y == pytest.approx(zero - (zero - one) * (10 - count) / 10, abs=0.1)
        assert all(a[1] <= b[1] for a, b in itertools.pairwise(line))
    for worst, *others in zip(*lines, strict=True):
        assert all(worst[1] >= other[1] for other in others)


def test_the_band_is_the_interval_of_the_worst_case(tmp_path):
    curve, root = drawn(tmp_path, LEVELS)
    quarters = sorted((float(line.attrib["y1"]) for line in by_look(root, "line", "rule")), reverse=True)
    (band,) = by_look(root, "polygon", "band")
    shares = [(quarters[0] - y) / (quarters[0] - quarters[-1]) for _, y in points(band)]
    ends = [curve.interval(broken) for broken in (0, *curve.worst)]
    assert shares[:4] == pytest.approx([end.high for end in ends], abs=1e-3)
    assert shares[:3:-1] == pytest.approx([end.low for end in ends], abs=1e-3)


def test_axes_and_legend_say_what_is_shown(tmp_path):
    _, root = drawn(tmp_path / "linf", LEVELS)
    said = texts(root)
    for word in ("accuracy", "eps (Linf)", "0", "0.1", "0.3", "0.4", "100 %", "pgd", "fmn"):
        assert word in said
    assert any("95 % interval" in text for text in said)
    _, root = drawn(tmp_path / "l0", {"1": [Run("pgd", {0: 1.0})]}, norm="l0")
    assert "changed pixels (L0)" in texts(root)


def test_a_mark_tells_its_number(tmp_path):
    _, root = drawn(tmp_path, LEVELS)
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "pgd at eps 0.3: 20 % (2 of 10)" in titles
    assert "worst case of all at eps 0.1: 70 % (7 of 10), 95 % interval 34–94 %" in titles


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_many_levels_and_attacks_stay_inside_and_apart(tmp_path, width):
    runs = [Run(f"an-attack-with-a-long-name:number={i}", {0: 1 / 255}) for i in range(9)]
    levels = {f"{k}/255": [run if k == 1 else run._replace(broken={}) for run in runs] for k in range(1, 33)}
    _, root = drawn(tmp_path, levels, width)
    height = float(root.attrib["height"])
    for look in ("point", "series", "worst", "band"):
        for shape in (*by_look(root, "polyline", look), *by_look(root, "polygon", look)):
            assert all(-1 <= x <= width + 1 and 0 <= y <= height for x, y in points(shape))
    axis = max(float(line.attrib["y1"]) for line in by_look(root, "line", "rule"))
    ticks = [text for text in by_look(root, "text", "tick") if float(text.attrib["y"]) > axis + 10]
    assert {"0", "32/255"} <= {tick.text for tick in ticks}
    places = sorted((float(tick.attrib["x"]), len(tick.text)) for tick in ticks)
    for (x, letters), (following, others) in itertools.pairwise(places):
        assert following - x > 5.5 * (letters + others) / 2
    looks = {(shape.tag, shape.attrib["class"], len(shape.attrib.get("points", "").split())) for shape in root.iter()
             if "point" in shape.attrib.get("class", "").split()}  # fmt: skip
    assert len(looks) == 9
