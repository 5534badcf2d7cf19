"""The figures of a result file, drawn as SVG by matplotlib: the same numbers give the same text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Curve = Mapping[str, Any]

# Okabe & Ito 2008, which the colour-blind can tell apart, without yellow: blue, vermilion, green, purple, orange, sky.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
CIRCLE = "unit circle"
# Axes of the complex plane: of a map, whose bound is the unit circle, and of a flow, whose bound is the imaginary axis.
MAP, FLOW = ("real part", "imaginary part"), ("re λ", "im λ")
INK, FAINT = "#333333", "#D9D9D9"
# A curve with more points has a mark on some of them only.
MARKED = 12
# A positive axis that spans more is drawn by its logarithm.
DECADES = 1e3
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": True,
}


def by_figure(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each figure, in the order in which they came."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve["figure"], []).append(curve)
    return found


def file_name(id: str, figure: str, scale: str) -> str:
    """A name of small letters, digits and hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", figure.lower()).strip("-")
    return f"{id.replace('/', '-')}-{words}-{scale}.svg"


def drawn(curves: Sequence[Curve]) -> str:
    """One figure as SVG: the curves of one name, on one pair of axes, with a legend beside it if there are several."""
    first = curves[0]
    style: Any = {**STYLE, "svg.hashsalt": first["figure"]}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2, 4.2) if _plane(first, MAP) else (5.4, 3.4))
        axes = figure.add_subplot()
        _frame(axes, curves)
        named = [curve for curve in curves if curve["name"] != CIRCLE]
        for curve, look in zip(named, _looks(named), strict=True):
            (_cloud if curve["points"] else _line)(axes, curve, look)
        if len(named) > 1 or _plane(first, MAP):
            _legend(axes, len(named))
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _plane(curve: Curve, *kinds: tuple[str, str]) -> bool:
    return (curve["x_label"].lower(), curve["y_label"].lower()) in (kinds or (MAP, FLOW))


def _frame(axes: Axes, curves: Sequence[Curve]) -> None:
    """Axes, labels and what lies behind the curves."""
    first = curves[0]
    axes.set_title(first["figure"], loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(first["x_label"])
    axes.set_ylabel(first["y_label"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both" if _plane(first) else "y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    if _plane(first):
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.axvline(0, color=INK, linewidth=0.6)
        if _plane(first, MAP):
            _circle(axes)
        return
    if _wide(curves, "x"):
        axes.set_xscale("log")
    if "%" in first["y_label"]:
        axes.set_ylim(-3, 103)
    elif _wide(curves, "y"):
        axes.set_yscale("log")


def _circle(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="datalim")
    turn = [2 * math.pi * k / 96 for k in range(97)]
    x, y = [math.cos(at) for at in turn], [math.sin(at) for at in turn]
    axes.plot(x, y, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label=CIRCLE)


def _wide(curves: Sequence[Curve], axis: str) -> bool:
    values = [value for curve in curves for value in curve[axis]]
    return min(values) > 0 and max(values) >= DECADES * min(values)


def _looks(curves: Sequence[Curve]) -> list[tuple[str, Any, str]]:
    """Colour, dashes and mark of each curve. Curves called "…, ours" and "…, paper" share a colour, and the paper's are
    dashed; beyond the colours dashes change."""
    stems = list(dict.fromkeys(_stem(curve) for curve in curves))
    found = []
    for curve in curves:
        place = stems.index(_stem(curve))
        again = place // len(COLOURS) if _stem(curve) == curve["name"] else int(curve["name"].endswith(", paper"))
        found.append((COLOURS[place % len(COLOURS)], DASHES[again % len(DASHES)], MARKERS[place % len(MARKERS)]))
    return found


def _stem(curve: Curve) -> str:
    return re.sub(r", (ours|paper)$", "", curve["name"])


def _line(axes: Axes, curve: Curve, look: tuple[str, Any, str]) -> None:
    colour, dashes, marker = look
    hollow = curve["name"].endswith(", paper")
    count = len(curve["x"])
    axes.plot(
        curve["x"],
        curve["y"],
        color=colour,
        linestyle=dashes,
        linewidth=1.6,
        marker=marker,
        markersize=4.5,
        markerfacecolor="white" if hollow else colour,
        markevery=1 if count <= MARKED else max(1, count // 8),
        label=curve["name"],
        clip_on=False,
    )


def _cloud(axes: Axes, curve: Curve, look: tuple[str, Any, str]) -> None:
    colour, _, marker = look
    size = 4.5 if len(curve["x"]) <= 100 else 3.0
    axes.plot(
        curve["x"],
        curve["y"],
        color=colour,
        linestyle="none",
        marker=marker,
        markersize=size,
        markeredgewidth=0.0,
        alpha=0.7,
        label=curve["name"],
    )


def _legend(axes: Axes, count: int) -> None:
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        fontsize=8 if count <= 14 else 6.5,
        handlelength=2.6,
        borderaxespad=0.3,
    )
