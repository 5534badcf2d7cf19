"""Certified accuracy against radius as inline SVG, below what the attacks have left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from verigrad.reports.certified import Certificates, Row
from verigrad.reports.figures import NARROW
from verigrad.reports.numbers import percent, quantity
from verigrad.reports.svg import extent, line, picture, row, shorten, text

NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
COLOURS = 5
LEFT = "not broken by any attack"
ENTRY = 22.0


class _Frame(NamedTuple):
    """The plot's rectangle, and the radius at its right edge."""

    x0: float
    x1: float
    y0: float
    y1: float
    top: float

    def at(self, radius: float, share: float) -> tuple[float, float]:
        x = self.x0 + (self.x1 - self.x0) * min(radius / self.top, 1.0)
        return x, self.y1 - (self.y1 - self.y0) * share


def certified_figure(found: Certificates, width: float, name: str) -> Markup:
    """The whole figure: solid lines are proved, dashed ones hold with a probability, dotted ones are estimates."""
    wide = width > NARROW
    keys = ([(LEFT, "worst")] if found.attacks else []) + [
        (f"{one.label} ({one.honesty})", _look(place, one)) for place, one in enumerate(found.rows)
    ]
    legend, below = _legend(keys, width)
    y0 = below + 14
    frame = _Frame(44.0, width - 28.0, y0, y0 + (340 if wide else 250), _top(found))
    parts = [*_grid(frame, found), *legend]
    if found.attacks:
        ends = sorted(far for far in found.reach.values())
        steps = [(0.0, found.left(-1.0)), *((far, found.left(far)) for far in ends)]
        hover = f"{LEFT}: no certificate of the model that holds can be above this line"
        parts.append(row([_stairs(frame, steps, "worst")], hover=hover, look="mark"))
    for place, one in enumerate(found.rows):
        ends = sorted(radius for radius in one.radius.values() if radius > 0)
        steps = [(0.0, one.share(0.0)), *((r, one.share(math.nextafter(r, math.inf))) for r in ends)]
        told = f"{one.label}: {percent(one.share(0.0), found.n)} certified, mean radius {quantity(one.mean)}"
        parts.append(row([_stairs(frame, steps, _look(place, one))], hover=told, look="mark"))
    title = f"Certified accuracy against radius in {NAMES[found.norm]}"
    told = "; ".join(f"{one.label}: mean radius {quantity(one.mean)}" for one in found.rows)
    return picture(width, frame.y1 + 46, parts, name=name, look="figure curve certified", title=title, desc=told)


def _look(place: int, one: Row) -> str:
    return f"series s{place % COLOURS} {one.honesty}"


def _top(found: Certificates) -> float:
    """The right edge: all radii, and nine tenths of the nearest errors: a few far ones shall not press the rest."""
    radii = [radius for one in found.rows for radius in one.radius.values()]
    ends = sorted(found.reach.values())
    return max([*radii, *ends[: math.ceil(0.9 * len(ends))], 1e-12]) * 1.05


def _stairs(frame: _Frame, steps: Sequence[tuple[float, float]], look: str) -> str:
    """A step function: from each radius on, its share."""
    points: list[tuple[float, float]] = []
    share = steps[0][1]
    for radius, below in steps:
        if radius > frame.top:
            break
        points += [frame.at(radius, share), frame.at(radius, below)]
        share = below
    points.append(frame.at(frame.top, share))
    return f'<polyline class="{look}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(points))}"/>'


def _thinned(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without points that round to the one before."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        if not kept or (round(x, 1), round(y, 1)) != (round(kept[-1][0], 1), round(kept[-1][1], 1)):
            kept.append((x, y))
    return kept


def _grid(frame: _Frame, found: Certificates) -> list[str]:
    parts: list[str] = []
    for quarter in range(5):
        _, y = frame.at(0, quarter / 4)
        parts.append(line(frame.x0, y, frame.x1, y, "rule"))
        parts.append(text(frame.x0 - 8, y + 4, f"{25 * quarter}{' %' if quarter == 4 else ''}", "tick", "end"))
    step = _round_step(frame.top / 8)
    for place in range(int(frame.top / step) + 1):
        x, y = frame.at(place * step, 0)
        parts.append(line(x, y, x, y + 5, "axis"))
        parts.append(text(x, y + 19, quantity(place * step), "tick", "middle"))
    parts.append(line(frame.x0, frame.y1, frame.x1, frame.y1, "axis"))
    middle, y = (frame.x0 + frame.x1) / 2, (frame.y0 + frame.y1) / 2
    parts.append(text(middle, frame.y1 + 40, f"radius ({NAMES[found.norm]}, pixels in [0, 1])", "faint", "middle"))
    turned = f'transform="translate(11 {y:.1f}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="faint" {turned}>share of all images</text>')
    return parts


def _round_step(step: float) -> float:
    """The nearest 1, 2 or 5 times a power of ten above a step."""
    power = 10 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * (1 - 1e-9))


def _legend(keys: Sequence[tuple[str, str]], width: float) -> tuple[list[str], float]:
    """Keys from left to right, in as many lines as they need; and the y below them."""
    parts: list[str] = []
    x, y = 0.0, 12.0
    for label, look in keys:
        told = shorten(label, width - 44)
        needed = 34 + extent(told) + 22
        if x and x + needed > width + 22:
            x, y = 0.0, y + ENTRY
        parts.append(f'<polyline class="{look}" points="{x:.1f},{y:.1f} {x + 26:.1f},{y:.1f}"/>')
        parts.append(text(x + 34, y + 4.5, told))
        x += needed
    return parts, y + 10
