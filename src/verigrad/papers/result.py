"""A number of a paper beside ours: what was measured, how, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from verigrad.ledger.statistics import clopper_pearson
from verigrad.papers.table import Table


class Status(StrEnum):
    MATCH = "match"
    DIFFERS = "differs"
    NOT_RUN = "not run"


class Measured(NamedTuple):
    """A value of ours with its exact 95 % interval and the number of images; the interval is None where it has none."""

    value: float
    low: float | None
    high: float | None
    n: int

    @classmethod
    def share(cls, count: int, n: int) -> Measured:
        """A share of n images, in percent."""
        low, high = clopper_pearson(count, n)
        return cls(100 * count / n, 100 * low, 100 * high, n)


class Result(NamedTuple):
    """One cell.

    Args:
        table: the id.
        row, column: the words that name it.
        printed: what the paper prints; None for a column that the paper lacks.
        ours: None where it was not run.
        band: how far the two may lie apart, in the column's unit; None where nothing is compared.
        status: by `compared`.
        reason: why it differs or was not run; "" where it matches or the paper has no number.
        protocol: how ours was measured: data, size, epochs, n attacked, seeds.
    """

    table: str
    row: tuple[str, ...]
    column: str
    printed: float | tuple[float, ...] | None
    ours: Measured | tuple[float, ...] | None
    band: float | None
    status: Status
    reason: str
    protocol: str = ""

    def as_dict(self) -> dict[str, Any]:
        ours = self.ours._asdict() if isinstance(self.ours, Measured) else self.ours
        return {**self._asdict(), "ours": ours, "status": str(self.status)}


class Finding(NamedTuple):
    """A claim in words: whether it holds here, and the numbers that say so.

    holds: None where it was not run. reason: why it does not hold, or was not run, as far as that was found.
    """

    table: str
    claim: str
    holds: bool | None
    evidence: str
    reason: str = ""

    @property
    def status(self) -> Status:
        return Status.NOT_RUN if self.holds is None else Status.MATCH if self.holds else Status.DIFFERS

    def as_dict(self) -> Mapping[str, Any]:
        return {**self._asdict(), "status": str(self.status)}


class Series(NamedTuple):
    """One curve of a figure, or a cloud of points.

    Args:
        table: the id.
        figure: which figure of the id it is drawn in; the same words for all curves of one figure.
        name: what the legend calls it.
        x, y: of equal length, finite.
        x_label, y_label: of the axes, with units.
        points: whether it is a cloud without a line.
    """

    table: str
    figure: str
    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    points: bool = False

    def as_dict(self) -> dict[str, Any]:
        """With five digits, which is more than a figure shows."""
        x, y = (tuple(float(f"{value:.5g}") for value in values) for values in (self.x, self.y))
        return self._replace(x=x, y=y)._asdict()


def compared(
    table: str,
    row: tuple[str, ...],
    column: str,
    printed: float | None,
    ours: Measured | None,
    *,
    band: float,
    protocol: str,
    reason: str = "",
) -> Result:
    """A cell whose status follows from its numbers.

    Args:
        band: the largest difference that still matches.
        protocol: how ours was measured, where that differs from the paper's settings.
        reason: why the numbers differ, if they do, or why there are none; without one it is the protocol.
    """
    why = reason or protocol
    if ours is None:
        return Result(table, row, column, printed, None, band, Status.NOT_RUN, why, protocol)
    if printed is None:
        return Result(table, row, column, None, ours, None, Status.MATCH, "", protocol)
    near = abs(ours.value - printed) <= band
    status = Status.MATCH if near else Status.DIFFERS
    return Result(table, row, column, printed, ours, band, status, "" if near else why, protocol)


def row_of(
    table: Table,
    row: tuple[str, ...],
    found: Mapping[str, Measured | None],
    *,
    band: float,
    protocol: str,
    reason: str = "",
) -> Iterator[Result]:
    """The cells of one row, by column, as `compared`. A column that the paper lacks has no printed number, and no cell
    where there is nothing of ours either."""
    for column, ours in found.items():
        printed = table.printed(*row, column=column) if column in table.columns else None
        assert not isinstance(printed, tuple)
        if column in table.columns or ours is not None:
            yield compared(table.id, row, column, printed, ours, band=band, protocol=protocol, reason=reason)
