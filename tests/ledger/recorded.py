"""A small ledger with everything in it, and what it says but for the seconds."""

import sys
from pathlib import Path

import numpy as np

from verigrad.ledger.schema import BatchRow, ResultRow, SampleRow, UnitRow, WitnessRow
from verigrad.ledger.store import Ledger

IDENTITY = {
    "weights": "ab" * 32,
    "threat": "linf:0.1",
    "batch": 4,
    "versions": {"torch": "2.13.0", "verigrad": "0.1.0"},
}
SHAPE = (2, 3, 3)


def images(n: int, seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).random((n, *shape)).astype(np.float32)


def unit(place: int, n: int = 4, *, joint: bool = False, shape: tuple[int, ...] = SHAPE, seconds: float = 1.5):
    """A finished unit on samples 0 to n - 1, of which the even ones are broken."""
    key = f"claim/pgd/{place}-0123456789abcdef"
    x_adv = images(n, 100 + place, shape)
    row = UnitRow(key, place, "claim", "pgd", "pgd:steps=2", place, 0, n, 2 * n, 3 * n, seconds, n)
    results = [ResultRow(key, s, s % 2 == 0, 0.05 * s, s % 2, -0.0 if s else None, "done", 2, 3) for s in range(n)]
    witnesses = [WitnessRow(key, s, 0, 0.05 * s, s % 4 == 0, x_adv[s]) for s in range(0, n, 2)]
    return row, results, witnesses, BatchRow(key, tuple(range(n)), x_adv) if joint else None


def fill(ledger: Ledger, units: int = 3, n: int = 4, shape: tuple[int, ...] = SHAPE, *, order=None) -> None:
    """Records what is missing."""
    ledger.put_samples([SampleRow(s, 1, 1, 0.25 * s) for s in range(n)], list(images(n, 1, shape)))
    ledger.put_note("health", "zero_gradient", {"value": 0.5, "fired": True})
    for place in order or range(units):
        finished = unit(place, n, joint=place % 2 == 1, shape=shape, seconds=0.1 + place)
        if not ledger.has(finished[0].key):
            ledger.record(*finished)
    ledger.put_summary({"verdict": "undecided", "found": 0.5, "seal": ledger.seal()})


def told(ledger: Ledger) -> dict[str, object]:
    """All that a ledger says, but for the seconds."""
    keys = [row.key for row in ledger.units()]
    batches = [batch for key in keys if (batch := ledger.batch(key)) is not None]
    return {
        "identity": ledger.identity,
        "samples": ledger.samples(),
        "images": [ledger.image(row.sample).tobytes() for row in ledger.samples()],
        "units": [row._replace(seconds=0.0) for row in ledger.units()],
        "results": [ledger.results(key) for key in keys],
        "witnesses": [row._replace(x_adv=row.x_adv.tobytes()) for row in ledger.witnesses()],
        "batches": [(batch.unit, batch.samples, batch.x_adv.tobytes()) for batch in batches],
        "notes": ledger.notes("health"),
        "summary": ledger.summary(),
        "seal": ledger.seal(),
    }


if __name__ == "__main__":
    with Ledger.create_or_resume(Path(sys.argv[1]), IDENTITY) as opened:
        fill(opened, units=60, n=20, shape=(3, 32, 32))
        if sys.argv[2:] == ["hold"]:
            print("ready", flush=True)  # noqa: T201
            sys.stdin.read()
