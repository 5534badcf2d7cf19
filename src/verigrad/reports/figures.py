"""Accuracies side by side: inline SVG from numbers, by pure functions.

Colours are CSS classes, so that light, dark and paper are the page's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from verigrad.reports.svg import Axis, circle, drawable, extent, line, picture, rect, text, whisker

WIDE, NARROW = 880, 360


class Bar(NamedTuple):
    """One row of `bars`: `share` in [0, 1] or None, its text, a CSS class, and the interval where there is one."""

    label: str
    share: float | None
    text: str
    look: str
    low: float | None = None
    high: float | None = None


class Gap(NamedTuple):
    """What lies between two bars: its ends in [0, 1], its text, a CSS class, and the row whose empty end carries it."""

    low: float
    high: float
    text: str
    look: str
    row: int


def bars(rows: Sequence[Bar], *, width: float, name: str, gap: Gap | None = None) -> Markup:
    """Accuracies as bars on one axis from 0 to 100 %, an interval as a whisker, the `gap` between two as a band."""
    left, right, height = (96.0, 176.0, 34.0) if width > 600 else (66.0, 66.0, 34.0)
    axis, top = Axis(left, width - right), 4.0
    bottom = top + height * len(rows)
    parts = axis.drawn(top, bottom)
    if gap:
        start, end = axis.at(gap.low), axis.at(gap.high)
        parts.append(rect(start, top, end - start, bottom - top, f"gap {gap.look}"))
        taken = max(start, axis.at(rows[gap.row].high))
        if end - taken > extent(gap.text) + 24:
            parts.append(text((taken + end) / 2, top + height * (gap.row + 0.5) + 4.5, gap.text, "gap-text", "middle"))
    for i, bar in enumerate(rows):
        middle = top + height * (i + 0.5)
        parts.append(text(axis.x0 - 10, middle + 4.5, bar.label, "label", "end"))
        if drawable(bar.share):
            # An accuracy of zero still leaves a trace, so that the row does not look forgotten.
            parts.append(rect(axis.x0, middle - 7, max(axis.at(bar.share) - axis.x0, 1.5), 14, f"bar {bar.look}"))
        if drawable(bar.low) and drawable(bar.high):
            parts += whisker(axis.at(bar.low), axis.at(bar.high), middle)
        parts.append(text(axis.x1 + 12, middle + 4.5, bar.text, "value"))
    desc = "; ".join(f"{bar.label} {bar.text}" for bar in rows)
    title = "Accuracies, claimed against found"
    return picture(width, bottom + 22, parts, name=name, look="figure", title=title, desc=desc)


def strip(
    *,
    claimed: float | None,
    found: float | None,
    low: float | None,
    high: float | None,
    name: str,
    look: str,
    desc: str,
) -> Markup:
    """A row-high picture for a table: the claim as a tick, what was found as a dot with its interval."""
    axis, width, height = Axis(6.0, 170.0), 176.0, 26.0
    parts = [rect(axis.x0, 11, axis.x1 - axis.x0, 4, "track")]
    if drawable(claimed) and drawable(found):
        start, end = sorted((axis.at(claimed), axis.at(found)))
        parts.append(rect(start, 11, end - start, 4, f"bar {look}"))
    if drawable(claimed):
        parts.append(line(axis.at(claimed), 4, axis.at(claimed), 22, "claim-tick"))
    if drawable(low) and drawable(high):
        parts += whisker(axis.at(low), axis.at(high), 13)
    if drawable(found):
        parts.append(circle(axis.at(found), 13, 4.5, f"dot {look}"))
    return picture(width, height, parts, name=name, look="strip", title="Claimed against found", desc=desc)
