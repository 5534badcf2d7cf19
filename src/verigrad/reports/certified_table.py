"""Certificates in the terminal: how far each reaches, how honest it is, what contradicts it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from verigrad.reports.certified import Certificates, Row
from verigrad.reports.certified_figure import NAMES
from verigrad.reports.numbers import MISSING, percent, quantity


def certified_table(found: Certificates) -> RenderableType:
    """Rows are certificates; below them what the numbers mean."""
    table = Table(box=None, pad_edge=False)
    # The class below the name: side by side they do not fit into 80 columns.
    table.add_column("certificate\nclass", overflow="fold")
    for name in ("certified", "abstained", "mean\nradius", "median", "passes\nan image", "contra-\ndictions"):
        table.add_column(name, justify="right")
    for row in found.rows:
        table.add_row(
            Text(row.label).append(f"\n{row.honesty}", "dim"),
            percent(row.share(0.0), found.n),
            percent(row.abstained / found.n, found.n),
            quantity(row.mean),
            quantity(row.median),
            passes(row, found.n),
            Text(contradicted(row), "bold" if row.broken_promise() else ""),
        )
    told = [Text(f"n = {found.n}, {found.correct} right without noise, radii in {NAMES[found.norm]}")]
    return Group(table, *told, *(Text(sentence) for sentence in feet(found)))


def passes(row: Row, n: int) -> str:
    """Forwards and backwards an image: "12 + 3"."""
    return " + ".join(
        f"{each:,.0f}" if each >= 100 else quantity(each) for each in (row.forwards / n, row.backwards / n)
    )


def contradicted(row: Row) -> str:
    """ "3 of 40" certified samples for which an error is known at all; a dash where none speaks of this certificate."""
    if row.contradictions is None or row.compared is None:
        return MISSING
    return f"{len(row.contradictions)} of {row.compared}"


def feet(found: Certificates) -> list[str]:
    """What the contradictions say, in sentences."""
    told = []
    for row in found.rows:
        if row.contradictions is None:
            told.append(
                f"{row.label} certifies the {row.subject}, not the model: errors of the model do not contradict it."
            )
        elif row.contradictions:
            first = row.contradictions[0]
            seen = f"{len(row.contradictions)} radii of {row.label} hold an error, such as that of sample "
            seen += f"{first.sample}: an error at {quantity(first.distance)} inside {quantity(first.radius)}. "
            told.append(seen + _meaning(row))
    if not found.attacks:
        told.append("No attack was run beside them, so nothing could contradict them.")
    return told


def _meaning(row: Row) -> str:
    if row.honesty == "sound":
        return "A sound certificate allows none: this is a fault of verigrad, or an assumption does not hold."
    if row.allowed is not None:
        return f"Its chance of error allows {row.allowed}."
    return "An estimate can be wrong; this is how often it was seen to be."
