"""The cells of a result file in the layout of the paper's own tables, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from verigrad.papers.table import Table

Cell = Mapping[str, Any]
MARKS = {"match": "=", "differs": "≠", "not run": "–"}
# What the paper has no number for.
NOTHING = ""


@dataclass
class Block:
    """Rows with the same columns: those of one printed table, or those that the paper lacks (table None)."""

    table: Table | None
    rows: dict[tuple[str, ...], dict[str, Cell]] = field(default_factory=dict)

    def holds(self, cell: Cell) -> bool:
        """Whether this is the place of the cell, and the place is free."""
        row, column = tuple(cell["row"]), cell["column"]
        return self.table is not None and (row, column) in self._places() and column not in self.rows.get(row, {})

    def put(self, cell: Cell) -> None:
        self.rows.setdefault(tuple(cell["row"]), {})[cell["column"]] = cell

    def _places(self) -> set[tuple[tuple[str, ...], str]]:
        assert self.table is not None
        return {(cell.row, cell.column) for cell in self.table.cells()}


def blocks(cells: Sequence[Cell], tables: Sequence[Table]) -> list[Block]:
    """The cells of one id by printed table, the rest after them. A cell that the paper lacks belongs to the table whose
    cells came last before it, if that has such a row."""
    printed = [Block(table) for table in tables]
    other = Block(None)
    found: list[Block] = []
    now = other
    for cell in cells:
        places = [block for block in (now, *printed) if cell["printed"] is not None and block.holds(cell)]
        if places:
            now = places[0]
            block = now
        else:
            known = now.table is not None and tuple(cell["row"]) in now.table.rows()
            block = now if known else other
        block.put(cell)
        if block is not other and block not in found:
            found.append(block)
    return [*found, *_alike(other)]


def _alike(block: Block) -> list[Block]:
    """Cut where the columns change, so that no table has holes."""
    parts = groupby(block.rows.items(), key=lambda item: (len(item[0]), tuple(item[1])))
    return [Block(None, dict(rows)) for _, rows in parts]


def written(block: Block) -> list[str]:
    """The lines of a Markdown table. Columns that the paper lacks come last, in italics."""
    columns = list(dict.fromkeys(column for cells in block.rows.values() for column in cells))
    own = block.table.columns if block.table else ()
    columns = [*(column for column in own if column in columns), *(c for c in columns if c not in own)]
    keys = block.table.keys if block.table else ("",) * len(next(iter(block.rows)))
    heads = [*keys, *(column if column in own or not own else f"*{column}*" for column in columns)]
    lines = [_line(heads), _line(["---"] * len(keys) + [":---:"] * len(columns))]
    for row, cells in block.rows.items():
        lines.append(_line([*row, *(shown(cells[c]) if c in cells else NOTHING for c in columns)]))
    return lines


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(part.replace('|', chr(92) + '|') for part in parts)} |"


def shown(cell: Cell) -> str:
    """The paper's number, ours with its interval, and the status."""
    ours, printed, percent = cell["ours"], cell["printed"], cell["column"].endswith("%")
    value = ours["value"] if isinstance(ours, Mapping) else ours
    text = "" if printed is None else f"{_number(printed)} → "
    text += "not run" if value is None else f"**{_number(value, percent)}**"
    if printed is not None:
        text += f" {MARKS[cell['status']]}"
    if isinstance(ours, Mapping) and ours["low"] is not None:
        text += f"<br><sub>{_number(ours['low'], percent)} to {_number(ours['high'], percent)}</sub>"
    return text


def _number(value: Any, percent: bool | None = None) -> str:
    """What is printed as it is; ours with one decimal if it is in percent, else with three digits."""
    if isinstance(value, Sequence):
        return " ".join(f"{one:.3g}" for one in value)
    if percent is None:
        return f"{value:g}"
    return f"{value:.1f}" if percent else f"{value:.3g}"


def protocols(block: Block) -> str:
    """How ours was measured: what cells say, without what another says at more length."""
    said = dict.fromkeys(cell.get("protocol", "") for cells in block.rows.values() for cell in cells.values())
    longest = [one for one in said if one and not any(other != one and other.startswith(one) for other in said)]
    return " ".join(f"Ours: {one}." for one in longest)


def bands(cells: Sequence[Cell]) -> str:
    """By how much ours may lie apart from what is printed."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        if cell["printed"] is not None and cell["band"] is not None and cell["ours"] is not None:
            found.setdefault("%" if cell["column"].endswith("%") else cell["column"], []).append(cell["band"])
    said = []
    for what, sizes in found.items():
        low, high = min(sizes), max(sizes)
        size = f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"
        said.append(f"{size} points" if what == "%" else f"{size} in {what}")
    return f"`=` within {'; '.join(said)}." if said else ""


def reasons(cells: Sequence[Cell]) -> list[str]:
    """Why cells differ or were not run: one line for each reason, with how many cells have it. What is no more than the
    protocol has been said already."""
    found: dict[tuple[str, str], int] = {}
    for cell in cells:
        if cell["status"] != "match":
            said = cell.get("protocol", "").startswith(cell["reason"])
            key = cell["status"], ", at the settings above" if said else f": {cell['reason']}"
            found[key] = found.get(key, 0) + 1
    lines = []
    for (status, reason), count in found.items():
        words = "not run" if status == "not run" else "differs" if count == 1 else "differ"
        lines.append(f"- `{MARKS[status]}` {count} {'cell' if count == 1 else 'cells'} {words}{reason}.")
    return lines
