"""Accuracy against eps as inline SVG: a line for each attack, and the worst case with the band of its interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from verigrad.catalog import NORMS
from verigrad.reports.curve import WORST, Curve
from verigrad.reports.figures import NARROW
from verigrad.reports.numbers import interval, percent, tally
from verigrad.reports.svg import circle, extent, line, picture, row, shorten, text

# Looks of the lines, in turn: so many colours in page order, and marks of another number, so that pairs do not repeat.
COLOURS, MARKS = 5, 4
# How far apart the legend's lines are, and the room beside the plot for half of its last number.
ENTRY, EDGE = 22.0, 28.0
# Half the size of a mark, and where levels stand close together.
RADIUS, SMALLEST = 4.5, 1.5


class _Frame(NamedTuple):
    """The plot's rectangle, and the eps at its right edge."""

    x0: float
    x1: float
    y0: float
    y1: float
    top: float

    def at(self, eps: float, share: float) -> tuple[float, float]:
        return self.x0 + (self.x1 - self.x0) * eps / self.top, self.y1 - (self.y1 - self.y0) * share


def curve_figure(curve: Curve, width: float, name: str) -> Markup:
    """The whole figure; between two levels a line only leads the eye."""
    wide = width > NARROW
    entries = [
        (WORST + ", with 95 % interval" if wide else WORST, None),
        *((r.label, i) for i, r in enumerate(curve.rows)),
    ]
    legend, below = _legend(entries, width)
    y0 = below + 14
    frame = _Frame(44.0, width - EDGE, y0, y0 + (340 if wide else 250), curve.levels[-1].eps)
    eps = [0.0, *(level.eps for level in curve.levels)]
    worst = (0, *curve.worst)
    parts = [*_grid(frame, curve), *legend]
    ends = [curve.interval(broken) for broken in worst]
    outline = [frame.at(x, end.high) for x, end in zip(eps, ends, strict=True)]
    outline += [frame.at(x, end.low) for x, end in reversed(list(zip(eps, ends, strict=True)))]
    parts.append(f'<polygon class="band" points="{_points(outline)}"/>')
    parts.append(_line([frame.at(x, curve.accuracy(b)) for x, b in zip(eps, worst, strict=True)], "worst"))
    radius = _radius([frame.at(x, 0)[0] for x in eps])
    for place, one in enumerate(curve.rows):
        points = [frame.at(x, curve.accuracy(b)) for x, b in zip(eps, (0, *one.broken), strict=True)]
        parts.append(_line(points, f"series s{place % COLOURS}"))
        for level, broken, point in zip(curve.levels, one.broken, points[1:], strict=True):
            hover = f"{one.label} at eps {level.label}: {_share(curve, broken)}"
            parts.append(row([_mark(*point, place, radius)], hover=hover, look="mark"))
    parts += _worst_dots(frame, curve)
    title = f"Accuracy against eps in {NORMS[curve.norm]}"
    told = [
        f"{percent(curve.accuracy(b), curve.n)} at {lv.label}" for lv, b in zip(curve.levels, curve.worst, strict=True)
    ]
    clean = percent(curve.accuracy(0), curve.n)
    desc = f"{WORST}: {clean} at 0; {'; '.join(told)}. The table below has every number."
    return picture(width, frame.y1 + 46, parts, name=name, look="figure curve", title=title, desc=desc)


def _worst_dots(frame: _Frame, curve: Curve) -> list[str]:
    """The levels of the worst case, for a pointer to rest on."""
    levels = [("eps 0, without an attack", 0.0, 0)]
    levels += [
        (f"{WORST} at eps {level.label}", level.eps, broken)
        for level, broken in zip(curve.levels, curve.worst, strict=True)
    ]
    dots = []
    for what, eps, broken in levels:
        hover = f"{what}: {_share(curve, broken)}, 95 % interval {interval(curve.interval(broken), curve.n)}"
        dots.append(row([circle(*frame.at(eps, curve.accuracy(broken)), 2.5, "worst-dot")], hover=hover, look="mark"))
    return dots


def _share(curve: Curve, broken: int) -> str:
    share = curve.accuracy(broken)
    return f"{percent(share, curve.n)} ({tally(share, curve.n)})"


def _grid(frame: _Frame, curve: Curve) -> list[str]:
    """Rules with their numbers, and what the axes show."""
    parts: list[str] = []
    for quarter in range(5):
        _, y = frame.at(0, quarter / 4)
        parts.append(line(frame.x0, y, frame.x1, y, "rule"))
        parts.append(text(frame.x0 - 8, y + 4, f"{25 * quarter}{' %' if quarter == 4 else ''}", "tick", "end"))
    labels = [("0", 0.0), *((level.label, level.eps) for level in curve.levels)]
    shown = _apart([(label, frame.at(eps, 0)[0]) for label, eps in labels])
    for label, eps in labels:
        x, y = frame.at(eps, 0)
        parts.append(line(x, y, x, y + 5, "axis"))
        if label in shown:
            parts.append(text(x, y + 19, label, "tick", "middle" if extent(label) / 2 < EDGE else "end"))
    parts.append(line(frame.x0, frame.y1, frame.x1, frame.y1, "axis"))
    parts.append(
        text(
            (frame.x0 + frame.x1) / 2,
            frame.y1 + 40,
            "changed pixels (L0)" if curve.norm == "l0" else f"eps ({NORMS[curve.norm]})",
            "faint",
            "middle",
        )
    )
    middle = (frame.y0 + frame.y1) / 2
    parts.append(
        f'<text class="faint" transform="translate(11 {middle:.1f}) rotate(-90)" text-anchor="middle">accuracy</text>'
    )
    return parts


def _apart(labels: Sequence[tuple[str, float]]) -> set[str]:
    """Those of some labels at their x that leave room for each other; the first and the last are among them."""
    last, end = labels[-1]
    shown, taken = {last}, -1e9
    for label, x in labels[:-1]:
        half = extent(label) / 2
        if x - half > taken + 6 and (x + half < end - extent(last) - 6 or x == labels[0][1]):
            shown.add(label)
            taken = x + half
    return shown


def _legend(entries: Sequence[tuple[str, int | None]], width: float) -> tuple[list[str], float]:
    """Keys from left to right, in as many lines as they need; and the y below them."""
    parts: list[str] = []
    x, y = 0.0, 12.0
    for label, place in entries:
        told = shorten(label, width - 44)
        needed = 34 + extent(told) + 22
        if x and x + needed > width + 22:
            x, y = 0.0, y + ENTRY
        if place is None:
            parts += [f'<rect class="band" x="{x:.1f}" y="{y - 8:.1f}" width="26" height="16"/>']
            parts.append(_line([(x, y), (x + 26, y)], "worst"))
        else:
            parts += [_line([(x, y), (x + 26, y)], f"series s{place % COLOURS}"), _mark(x + 13, y, place)]
        parts.append(text(x + 34, y + 4.5, told))
        x += needed
    return parts, y + 10


def _radius(xs: Sequence[float]) -> float:
    """Half the size of marks at these x, so that neighbours stay apart."""
    return min(RADIUS, max(SMALLEST, 0.3 * min(b - a for a, b in pairwise(xs))))


def _mark(x: float, y: float, place: int, r: float = RADIUS) -> str:
    """A hollow shape, so that marks on the same spot are all seen."""
    look = f"point s{place % COLOURS}"
    shapes = (
        None,
        [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)],
        [(x, y - 1.2 * r), (x + 1.2 * r, y + r), (x - 1.2 * r, y + r)],
        [(x, y - 1.4 * r), (x + 1.4 * r, y), (x, y + 1.4 * r), (x - 1.4 * r, y)],
    )
    shape = shapes[place % MARKS]
    return circle(x, y, r, look) if shape is None else f'<polygon class="{look}" points="{_points(shape)}"/>'


def _line(points: Sequence[tuple[float, float]], look: str) -> str:
    return f'<polyline class="{look}" points="{_points(points)}"/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
