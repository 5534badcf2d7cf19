"""A curve in the terminal: attacks against eps, and the worst case with its interval."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from verigrad.catalog import NORMS
from verigrad.reports.curve import WORST, Curve, feet
from verigrad.reports.numbers import interval, percent


def curve_table(curve: Curve) -> RenderableType:
    """Rows are attacks, columns are eps, from the clean accuracy at 0 on."""
    table = Table(box=None, pad_edge=False)
    table.add_column("attack", overflow="fold")
    for label in ("eps 0", *(level.label for level in curve.levels)):
        table.add_column(label, justify="right", no_wrap=True)
    for row in curve.rows:
        table.add_row(Text(row.label), *(percent(curve.accuracy(broken), curve.n) for broken in (0, *row.broken)))
    counts = (0, *curve.worst)
    table.add_row(Text(WORST, "bold"), *(Text(percent(curve.accuracy(broken), curve.n), "bold") for broken in counts))
    table.add_row("95 % interval", *(interval(curve.interval(broken), curve.n) for broken in counts))
    told = [Text(f"n = {curve.n}, eps in {NORMS[curve.norm]}, {curve.correct} samples right without an attack")]
    return Group(table, *told, *map(Text, feet(curve)))
