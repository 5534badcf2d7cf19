"""Small made-up runs of certificates in real ledgers: radii by certificate, errors by attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from verigrad.ledger.schema import ResultRow, SampleRow, UnitRow, WitnessRow
from verigrad.ledger.store import Ledger
from verigrad.reports.certified import NOTE

SHAPE = (1, 2, 2)
CLEAN = np.full(SHAPE, 0.5, np.float32)


def note(name: str, radii: Sequence[float], *, first: int = 0, **changed: Any) -> dict[str, Any]:
    """What one part of a certificate leaves, for the samples from `first` on."""
    count = len(radii)
    return {
        "certificate": f"{name}:full=true",
        "label": name,
        "norm": "l2",
        "subject": "model",
        "honesty": "sound",
        "alpha": None,
        "assumptions": ["exact arithmetic"],
        "facts": {"lipschitz": 2.0},
        "samples": list(range(first, first + count)),
        "radius": list(radii),
        "predicted": [0] * count,
        "abstained": [False] * count,
        "forwards": [2] * count,
        "backwards": [1] * count,
        **changed,
    }


def build(
    folder: Path,
    notes: Sequence[Mapping[str, Any]],
    errors: Mapping[str, Mapping[int, float]] | None = None,
    *,
    n: int = 4,
    wrong: Sequence[int] = (),
    norm: str = "l2",
    alone: bool = True,
    weights: str = "w",
) -> Path:
    """Writes FOLDER/ledger.sqlite. `errors`: by attack and sample, how far the last pixel moves up to an error."""
    identity = {"command": "certify", "model": "nets/made-up", "data": "digits", "data_sha256": "d", "norm": norm}
    named = {**identity, "weights_sha256": weights, "threat": "l2:2", "n": n}
    with Ledger.create_or_resume(folder / "ledger.sqlite", named) as ledger:
        ledger.put_samples([SampleRow(i, 0, int(i in wrong), -1.0) for i in range(n)], [CLEAN] * n)
        for place, one in enumerate(notes):
            ledger.put_note(NOTE, f"{one['certificate']}#{place}", dict(one))
        for place, (attack, found) in enumerate((errors or {}).items()):
            _record(ledger, place, attack, found, alone)
    return folder


def _record(ledger: Ledger, place: int, attack: str, found: Mapping[int, float], alone: bool) -> None:
    key = f"claim/{attack}/{place}"
    results = [ResultRow(key, sample, True, 9.0, 1, 1.0, "done", 3, 2) for sample in found]
    witnesses = []
    for sample, far in found.items():
        moved = CLEAN.copy()
        moved[..., -1, -1] += far
        # The distance on record is that of another norm: what counts is measured anew.
        witnesses.append(WitnessRow(key, sample, 1, 9.0, alone, moved))
    count = len(found)
    ledger.record(
        UnitRow(key, place, "claim", attack, f"{attack}:full", 0, 0, count, 3 * count, 2 * count, 0.1),
        results,
        witnesses,
        None,
    )
