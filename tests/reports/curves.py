"""Small made-up curves in real ledgers: by level and attack, at what distance each sample was broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from verigrad.ledger.schema import BatchRow, ResultRow, SampleRow, UnitRow, WitnessRow
from verigrad.ledger.store import Ledger
from verigrad.reports.curve import LADDER, NOTE, folder_of

SHAPE = (1, 2, 2)


class Run(NamedTuple):
    """One attack at one level: by sample its distance, or None where it stood. `ended` says that it came to its end."""

    attack: str
    broken: Mapping[int, float | None]
    kind: str = "budget"
    once: bool = False
    ended: bool = True
    joint: bool = False


def build(
    folder: Path,
    levels: Mapping[str, Sequence[Run]],
    *,
    norm: str = "linf",
    labels: Sequence[int] = tuple(range(10)),
    wrong: Sequence[int] = (),
    seed: int = 0,
    model: str = "tests/nets/made-up",
) -> Path:
    """Writes a ledger below `folder` for each level, by its label as it is written."""
    image = np.full(SHAPE, 0.5, np.float32)
    identity = {"command": "attack", "model": model, "data": "digits", "n": len(labels), "seed": seed}
    for label, runs in levels.items():
        top, _, bottom = label.partition("/")
        threat = f"{norm}:{float(top) / float(bottom or 1)!r}"
        named = {**identity, "threat": threat, LADDER: ",".join(levels)}
        with Ledger.create_or_resume(folder / folder_of(label) / "ledger.sqlite", named) as ledger:
            rows = [SampleRow(i, y, y + (i in wrong), -1.0) for i, y in enumerate(labels)]
            ledger.put_samples(rows, [image] * len(rows))
            for place, run in enumerate(runs):
                _record(ledger, place, run, image)
    return folder


def _record(ledger: Ledger, place: int, run: Run, image: np.ndarray) -> None:
    key = f"claim/{run.attack}/{place}"
    n = len(run.broken)
    results, witnesses = [], []
    for sample, far in run.broken.items():
        results.append(ResultRow(key, sample, far is not None, far or 0.0, 9, 1.0, "done", 3, 2))
        if far is not None:
            witnesses.append(WitnessRow(key, sample, 9, far, not run.joint, image))
    batch = BatchRow(key, tuple(run.broken), np.stack([image] * n)) if run.joint else None
    ledger.record(
        UnitRow(key, place, "claim", run.attack, f"{run.attack}:full", 0, 0, n, 3 * n, 2 * n, 0.1),
        results,
        witnesses,
        batch,
    )
    if run.ended:
        ledger.put_note(NOTE, run.attack, {"attack": f"{run.attack}:full", "kind": run.kind, "once": run.once})
