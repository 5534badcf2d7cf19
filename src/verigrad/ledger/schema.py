"""The tables of a ledger, and the rows that go in and come out."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

# Raised by one whenever a table or the canonical form of an identity changes; part of every identity hash.
FORMAT = 1
# The letters 'vgrd' in the header of the file: how a ledger is told from any other SQLite file.
APPLICATION_ID = 0x76677264

STAGES = ("claim", "intervention", "escalation")


class Outcome(StrEnum):
    """What happened to one sample in one unit. Only the first three may go with a witness."""

    DONE = "done"
    ZERO_GRADIENT = "zero_gradient"
    NON_FINITE_GRADIENT = "non_finite_gradient"
    NON_FINITE_LOGITS = "non_finite_logits"
    NON_FINITE_INPUT = "non_finite_input"
    OUTSIDE_THREAT = "outside_threat"


class SampleRow(NamedTuple):
    """One clean sample. `prediction` is -1 and `margin` None where the logits are not finite."""

    sample: int
    label: int
    prediction: int
    margin: float | None


class UnitRow(NamedTuple):
    """One attack on one chunk of samples.

    `ordinal` is the unit's place in the plan, not in time; `attack` the full spec; `attempted` the number of results;
    `forwards` and `backwards` the passes of all samples that were attacked, `judging` the forward passes of the judge;
    `seconds` the wall time of the attack.
    """

    key: str
    ordinal: int
    stage: str
    name: str
    attack: str
    chunk: int
    seed: int
    attempted: int
    forwards: int
    backwards: int
    seconds: float
    judging: int = 0


class ResultRow(NamedTuple):
    """What one unit did to one sample, as judged. `distance` is in the threat's norm, None if it is not finite."""

    unit: str
    sample: int
    broken: bool
    distance: float | None
    prediction: int
    margin: float | None
    status: str
    forwards: int
    backwards: int


class WitnessRow(NamedTuple):
    """A stored adversarial example, `x_adv` (C, H, W) float32. `alone`: whether it stands in a batch of one."""

    unit: str
    sample: int
    prediction: int
    distance: float
    alone: bool
    x_adv: np.ndarray


class BatchRow(NamedTuple):
    """The joint batch in which the witnesses of a unit stand: `x_adv` (B, C, H, W) float32, one row a sample."""

    unit: str
    samples: tuple[int, ...]
    x_adv: np.ndarray


class Table(NamedTuple):
    """A table: its columns with their types, the columns that name a row, and whether the seal covers it."""

    columns: dict[str, str]
    key: tuple[str, ...]
    sealed: bool = True

    def create(self, name: str) -> str:
        """The one SQL text that makes this table; `check` compares it with the file's."""
        columns = ", ".join(f"{column} {kind}" for column, kind in self.columns.items())
        return f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(self.key)}))"


TABLES: dict[str, Table] = {
    "identity": Table({"hash": "TEXT", "value": "TEXT"}, ("hash",)),
    "samples": Table(
        {"sample": "INTEGER", "label": "INTEGER", "prediction": "INTEGER", "margin": "REAL", "shape": "TEXT"}
        | {"image": "BLOB"},
        ("sample",),
    ),
    "units": Table(
        {"key": "TEXT", "ordinal": "INTEGER", "stage": "TEXT", "name": "TEXT", "attack": "TEXT", "chunk": "INTEGER"}
        | {"seed": "INTEGER", "attempted": "INTEGER", "forwards": "INTEGER", "backwards": "INTEGER"}
        | {"judging": "INTEGER"},
        ("key",),
    ),
    "results": Table(
        {"unit": "TEXT", "sample": "INTEGER", "broken": "INTEGER", "distance": "REAL", "prediction": "INTEGER"}
        | {"margin": "REAL", "status": "TEXT", "forwards": "INTEGER", "backwards": "INTEGER"},
        ("unit", "sample"),
    ),
    "witnesses": Table(
        {"unit": "TEXT", "sample": "INTEGER", "prediction": "INTEGER", "distance": "REAL", "alone": "INTEGER"}
        | {"shape": "TEXT", "x_adv": "BLOB"},
        ("unit", "sample"),
    ),
    "batches": Table({"unit": "TEXT", "samples": "TEXT", "shape": "TEXT", "x_adv": "BLOB"}, ("unit",)),
    "notes": Table({"kind": "TEXT", "name": "TEXT", "value": "TEXT"}, ("kind", "name")),
    # Seconds say how busy the machine was: two runs with the same numbers have the same seal. The summary holds it.
    "timings": Table({"unit": "TEXT", "seconds": "REAL"}, ("unit",), sealed=False),
    "summary": Table({"id": "INTEGER", "value": "TEXT"}, ("id",), sealed=False),
}
RECEIPTS = Table({"part": "TEXT", "row": "TEXT", "digest": "TEXT"}, ("part", "row"))
