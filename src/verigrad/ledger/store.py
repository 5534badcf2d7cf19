"""The ledger itself: facts are appended, each with its receipt, and never changed."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from verigrad.ledger import receipt
from verigrad.ledger.errors import LedgerError
from verigrad.ledger.identity import canonical
from verigrad.ledger.opening import Opened, open_to_read, open_to_write, shut
from verigrad.ledger.schema import (
    STAGES,
    TABLES,
    BatchRow,
    ResultRow,
    SampleRow,
    UnitRow,
    WitnessRow,
)


class Ledger:
    """A run's SQLite file. Made by `create_or_resume` or `read`; a context manager.

    Every writing method is one transaction: after a kill at any moment all of it is there, or nothing. A new fact
    takes away the summary, which no longer speaks for the whole.

    Every method raises `LedgerError` if the file cannot be read or written, or a fact contradicts one that is there.
    """

    def __init__(self, path: Path, opened: Opened) -> None:
        self.path = path
        self._opened = opened
        self._db = opened.db

    @classmethod
    def create_or_resume(cls, path: str | Path, identity: Mapping[str, Any]) -> Self:
        """Opens the ledger of this run for writing, or makes it; folders are made too.

        Raises:
            LedgerMismatch: the ledger belongs to another identity; each differing key is named with both values.
            LedgerError: another process writes it, or the file is no ledger.
        """
        return cls(Path(path), open_to_write(Path(path), identity))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Opens a ledger for reading, also while it is being written.

        Raises:
            LedgerError: it is missing, or no ledger.
        """
        return cls(Path(path), open_to_read(Path(path)))

    def close(self) -> None:
        """Lets go of the file and of the writer's lock."""
        shut(self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> dict[str, Any]:
        """What makes this run what it is, as it was given (tuples have become lists)."""
        return json.loads(self._all("SELECT value FROM identity")[0][0])

    def put_samples(self, rows: Sequence[SampleRow], images: Sequence[np.ndarray]) -> None:
        """Appends clean samples, each with its image (C, H, W) float32. Samples that are there already must agree."""
        if len(rows) != len(images):
            raise LedgerError(f"Each sample needs its image. Got {len(rows)} samples and {len(images)} images.")
        known = {row.sample: row for row in self.samples()}
        with self._transaction(new=any(row.sample not in known for row in rows)):
            for row, image in zip(rows, images, strict=True):
                there = known.get(row.sample)
                if there is None:
                    self._append("samples", (*row, *_pack(image, 3)))
                elif there[:3] != row[:3] or not np.array_equal(self.image(row.sample), image):
                    held = f"label {there.label} and prediction {there.prediction}"
                    got = f"{row.label} and {row.prediction}, or another image"
                    fault = f"Sample {row.sample} is in the ledger with {held}. Got {got}."
                    raise LedgerError(f"{fault} Does the classifier draw random numbers?")

    def samples(self) -> tuple[SampleRow, ...]:
        """All clean samples, by number."""
        rows = self._all("SELECT sample, label, prediction, margin FROM samples ORDER BY sample")
        return tuple(SampleRow(*row) for row in rows)

    def image(self, sample: int) -> np.ndarray:
        """The clean image (C, H, W) float32 of a sample."""
        rows = self._all("SELECT shape, image FROM samples WHERE sample = ?", int(sample))
        if not rows:
            raise LedgerError(f"The ledger {self.path} has no sample {sample}.")
        return _unpack(*rows[0])

    def has(self, key: str) -> bool:
        """Whether a unit is recorded."""
        return bool(self._all("SELECT 1 FROM units WHERE key = ?", key))

    def record(
        self,
        unit: UnitRow,
        results: Sequence[ResultRow],
        witnesses: Sequence[WitnessRow],
        batch: BatchRow | None = None,
    ) -> None:
        """Appends one finished unit: its row, a result for each attempted sample, a witness for each broken one.

        Args:
            batch: the joint batch in which the witnesses stand; only for classifiers whose predictions are coupled.
        """
        _check_unit(unit, results, witnesses, batch)
        with self._transaction():
            self._append("units", (*unit[:10], unit.judging))
            self._append("timings", (unit.key, unit.seconds))
            for row in results:
                self._append("results", row)
            for row in witnesses:
                self._append("witnesses", (*row[:5], *_pack(row.x_adv, 3)))
            if batch is not None:
                joint = canonical([int(sample) for sample in batch.samples])
                self._append("batches", (batch.unit, joint, *_pack(batch.x_adv, 4)))

    def units(self, stage: str | None = None) -> tuple[UnitRow, ...]:
        """The recorded units in the order of the plan, of one stage or of all."""
        wanted = STAGES if stage is None else (stage,)
        rows = self._all(
            "SELECT key, ordinal, stage, name, attack, chunk, seed, attempted, forwards, backwards, seconds, judging "
            "FROM units JOIN timings ON unit = key ORDER BY ordinal, key"
        )
        return tuple(unit for unit in (UnitRow(*row) for row in rows) if unit.stage in wanted)

    def results(self, key: str) -> tuple[ResultRow, ...]:
        """What a unit did to each of its samples, by sample."""
        rows = self._all("SELECT * FROM results WHERE unit = ? ORDER BY sample", key)
        return tuple(ResultRow(*row)._replace(broken=bool(row[2])) for row in rows)

    def witnesses(self, sample: int | None = None, *, unit: str | None = None) -> tuple[WitnessRow, ...]:
        """The witnesses of one sample, of one unit, or all; in the order of the plan, then by sample."""
        asked = {"w.sample": None if sample is None else int(sample), "w.unit": unit}
        asked = {column: value for column, value in asked.items() if value is not None}
        where = f"WHERE {' AND '.join(f'{column} = ?' for column in asked)} " if asked else ""
        tables = "FROM witnesses w LEFT JOIN units u ON u.key = w.unit"
        rows = self._all(
            f"SELECT w.* {tables} {where}ORDER BY u.ordinal, w.unit, w.sample",
            *asked.values(),
        )
        return tuple(
            WitnessRow(key, at, prediction, distance, bool(alone), _unpack(shape, data))
            for key, at, prediction, distance, alone, shape, data in rows
        )

    def batch(self, key: str) -> BatchRow | None:
        """The joint batch of a unit, or None."""
        rows = self._all("SELECT samples, shape, x_adv FROM batches WHERE unit = ?", key)
        return BatchRow(key, tuple(json.loads(rows[0][0])), _unpack(*rows[0][1:])) if rows else None

    def put_note(self, kind: str, name: str, value: Any) -> None:
        """Appends a fact that JSON can hold. The same again changes nothing; another value is refused."""
        text = canonical(value, f"note {kind}/{name}")
        known = self._all("SELECT value FROM notes WHERE kind = ? AND name = ?", kind, name)
        if not known:
            with self._transaction():
                self._append("notes", (kind, name, text))
        elif known[0][0] != text:
            raise LedgerError(
                f"The note {kind}/{name} is in the ledger as {known[0][0]}. Got {text}. Notes never change."
            )

    def notes(self, kind: str) -> dict[str, Any]:
        """All notes of a kind by name, in the order in which they were first put."""
        rows = self._all("SELECT name, value FROM notes WHERE kind = ? ORDER BY rowid", kind)
        return {name: json.loads(value) for name, value in rows}

    def put_summary(self, summary: Mapping[str, Any]) -> None:
        """Sets the summary, in place of any other. It is no fact but drawn from facts, so the seal leaves it out."""
        text = canonical(dict(summary), "summary")
        with self._transaction():
            self._append("summary", (1, text))

    def summary(self) -> dict[str, Any] | None:
        """The summary, or None as long as there is none that speaks for the whole ledger."""
        rows = self._all("SELECT value FROM summary")
        return json.loads(rows[0][0]) if rows else None

    def seal(self) -> str:
        """One sha256, 64 hexadecimal digits, over the receipts of all that was found: identity, samples, images, units,
        results, witnesses, batches and notes. The same in whatever order they came and however long they took."""
        with self._sqlite():
            return receipt.seal(self._db)

    def check(self, seal: str | None = None) -> None:
        """Compares each row with its receipt, and the seal with the summary's and with `seal`. Reads the whole file.

        Raises:
            EditedLedger: naming the first table and row that differ.
        """
        receipt.check(self._db, self.path, seal)

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._sqlite():
            return self._db.execute(query, values).fetchall()

    def _append(self, part: str, row: Sequence[object]) -> None:
        table = TABLES[part]
        plain = [_plain(value) for value in row]
        self._db.execute(f"INSERT INTO {part} VALUES ({','.join('?' * len(plain))})", plain)
        # Digested as SQLite gives it back, which is how `check` will see it (it turns -0.0 into 0.0, for one).
        key = [plain[list(table.columns).index(column)] for column in table.key]
        where = " AND ".join(f"{column} = ?" for column in table.key)
        stored = self._db.execute(f"SELECT * FROM {part} WHERE {where}", key).fetchone()
        stamp = (part, receipt.row_name(part, stored), receipt.digest(part, stored))
        self._db.execute("INSERT INTO receipts VALUES (?, ?, ?)", stamp)

    @contextmanager
    def _transaction(self, *, new: bool = True) -> Iterator[None]:
        with self._sqlite():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if new:
                    self._db.execute("DELETE FROM summary")
                    self._db.execute("DELETE FROM receipts WHERE part = 'summary'")
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _sqlite(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"The ledger {self.path} already holds this: {error}. Facts are recorded once.") from None
        except (sqlite3.Error, UnicodeError) as error:
            raise LedgerError(f"The ledger {self.path} cannot be used: {error}.") from None


def _check_unit(
    unit: UnitRow, results: Sequence[ResultRow], witnesses: Sequence[WitnessRow], batch: BatchRow | None
) -> None:
    if unit.stage not in STAGES:
        raise LedgerError(f"The stage of a unit must be one of {', '.join(STAGES)}. Got {unit.stage!r}.")
    rows = [*results, *witnesses, *([] if batch is None else [batch])]
    if any(row.unit != unit.key for row in rows) or unit.attempted != len(results):
        raise LedgerError(f"Unit {unit.key} must come with its own results only, {unit.attempted} of them.")
    broken = sorted(row.sample for row in results if row.broken)
    if broken != sorted(row.sample for row in witnesses):
        raise LedgerError(f"Unit {unit.key} must come with one witness for each broken sample, and no other.")
    if batch is not None and (len(batch.samples) != len(batch.x_adv) or not set(broken) <= set(batch.samples)):
        raise LedgerError(f"The joint batch of unit {unit.key} must hold one image a sample, and every broken sample.")


def _pack(image: np.ndarray, dimensions: int) -> tuple[str, bytes]:
    if image.dtype != np.float32 or image.ndim != dimensions:
        raise LedgerError(
            f"An image must be float32 with {dimensions} dimensions. Got {image.dtype} of shape {image.shape}."
        )
    return canonical(list(image.shape)), image.astype("<f4", order="C").tobytes()


def _unpack(shape: str, data: bytes) -> np.ndarray:
    try:
        return np.frombuffer(data, dtype="<f4").reshape(json.loads(shape)).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise LedgerError(f"The ledger holds an image that cannot be read: {error}.") from None


def _plain(value: object) -> object:
    """NumPy's numbers as Python's; SQLite would store them as bytes, and a number that is not finite as nothing."""
    if isinstance(value, bool | np.bool_ | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            raise LedgerError(f"A number in the ledger must be finite, or None. Got {value}.")
        return float(value)
    return str(value) if isinstance(value, str) else value
