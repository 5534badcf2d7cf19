"""The strokes that the figures are made of, as strings of SVG. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeGuard

from markupsafe import Markup, escape

from verigrad.reports.numbers import is_number

# Width of a character over the type size, measured generously for the system's sans serif fonts.
CHARACTER = 0.56
SIZE = 13.0


class Axis(NamedTuple):
    """An axis from 0 to 100 % between two x coordinates."""

    x0: float
    x1: float

    def at(self, share: float | None) -> float:
        """The x coordinate of a share; what lies outside [0, 1] is drawn at the end, what is no number at 0."""
        return self.x0 + (self.x1 - self.x0) * (min(max(share, 0.0), 1.0) if drawable(share) else 0.0)

    def drawn(self, top: float, bottom: float) -> list[str]:
        """Rules at every quarter from `top` to `bottom`, with their numbers below."""
        parts: list[str] = []
        for quarter in range(5):
            x = self.at(quarter / 4)
            parts.append(line(x, top, x, bottom, "rule"))
            # At the left edge of the picture a centred number would be cut.
            anchor = "start" if x < 10 else "middle"
            parts.append(text(x, bottom + 15, f"{25 * quarter}{' %' if quarter == 4 else ''}", "tick", anchor))
        return parts


def drawable(share: float | None) -> TypeGuard[float]:
    """Whether there is a number to draw."""
    return is_number(share)


def picture(
    width: float, height: float, parts: Iterable[str], *, name: str, look: str, title: str, desc: str
) -> Markup:
    """A whole figure. `name` makes its ids unique on the page; `title` and `desc` are for those who do not see it."""
    body = "".join(parts)
    return Markup(
        f'<svg class="{look}" role="img" aria-labelledby="{escape(name)}-t {escape(name)}-d" '
        f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
        f'<title id="{escape(name)}-t">{escape(title)}</title><desc id="{escape(name)}-d">{escape(desc)}</desc>'
        f"{body}</svg>"
    )


def rect(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect class="{look}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" rx="1.5"/>'


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def circle(x: float, y: float, radius: float, look: str) -> str:
    return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def text(x: float, y: float, words: str, look: str = "", anchor: str = "start") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def row(parts: Iterable[str], *, hover: str, look: str) -> str:
    """Parts that belong together; a pointer resting on them is told `hover`."""
    return f'<g class="{look}"><title>{escape(hover)}</title>{"".join(parts)}</g>'


def whisker(low: float, high: float, y: float) -> list[str]:
    """An interval from x = low to x = high, with a stroke at both ends."""
    ends = [line(x, y - 5, x, y + 5, "whisker") for x in (low, high)]
    return [line(low, y, high, y, "whisker"), *ends]


def extent(words: str) -> float:
    """About how wide a text is at `SIZE`."""
    return CHARACTER * SIZE * len(words)


def shorten(words: str, width: float) -> str:
    """The text, cut with an ellipsis where it would not fit into `width`; the full text belongs nearby."""
    room = max(int(width / (CHARACTER * SIZE)), 2)
    return words if len(words) <= room else words[: room - 1].rstrip() + "…"
