"""A table of a paper as it was printed: what names a row, the columns, and every number in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

Printed = float | tuple[float, ...] | None


class Cell(NamedTuple):
    """One number of a table: the words that name its row, its column, and what is printed there.

    printed: a number; for time steps a tuple of them; None where the paper has no number.
    """

    row: tuple[str, ...]
    column: str
    printed: Printed


@dataclass(frozen=True, kw_only=True)
class Table:
    """A printed table.

    Args:
        id: as in `verigrad reproduce ID`.
        title: what it shows, in our words.
        protocol: the paper's own settings.
        keys: what the words at the left of each row are.
        columns: the columns of numbers, with their units.
        text: one line a row: the words, ":", and the numbers, between "|". Time steps stand between blanks.
    """

    id: str
    title: str
    protocol: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    text: str

    def __post_init__(self) -> None:
        for cell_row, numbers in self._lines():
            if len(cell_row) != len(self.keys) or len(numbers) != len(self.columns):
                raise ValueError(f"The row {cell_row} of {self.id} does not fit its keys and columns.")

    def cells(self) -> tuple[Cell, ...]:
        """Row by row, from left to right."""
        return tuple(
            Cell(words, column, printed)
            for words, numbers in self._lines()
            for column, printed in zip(self.columns, numbers, strict=True)
        )

    def printed(self, *row: str, column: str) -> Printed:
        """One number. Raises KeyError where there is no such cell."""
        for cell in self.cells():
            if (cell.row, cell.column) == (row, column):
                return cell.printed
        raise KeyError((self.id, *row, column))

    def rows(self) -> tuple[tuple[str, ...], ...]:
        return tuple(words for words, _ in self._lines())

    def _lines(self) -> Iterator[tuple[tuple[str, ...], tuple[Printed, ...]]]:
        for line in self.text.strip().splitlines():
            words, _, numbers = line.partition(" : ")
            yield _split(words), tuple(map(_number, _split(numbers)))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


def _number(text: str) -> Printed:
    if text == "-":
        return None
    numbers = tuple(map(float, text.split()))
    return numbers[0] if len(numbers) == 1 else numbers
