"""Reads certificates from one ledger, and the errors that contradict them from it and from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger
from verigrad.reports.certified import NOTE, Certificates, Witnessed, collect

# What must be the same in two ledgers for the witnesses of one to speak of the radii of the other.
SHARED = ("weights_sha256", "data_sha256", "model")


def gather_certificates(folder: str | Path, against: Sequence[str | Path] = ()) -> Certificates:
    """Reads FOLDER/ledger.sqlite, and the witnesses in the ledgers of the folders `against`.

    Raises:
        LedgerError: there is no certificate that came to its end, or another ledger is of other weights or data.
    """
    with Ledger.read(Path(folder) / "ledger.sqlite") as ledger:
        identity, samples, notes = ledger.identity, ledger.samples(), list(ledger.notes(NOTE).values())
        seal = ledger.seal()
        norm = str(identity["norm"])
        found = list(_witnessed(ledger, norm))
        attacks = {unit.attack: None for unit in ledger.units()}
    for other in against:
        with Ledger.read(Path(other) / "ledger.sqlite") as ledger:
            for key in SHARED:
                if ledger.identity.get(key) != identity.get(key):
                    raise LedgerError(
                        f"The witnesses of {ledger.path} are of another run: its {key} is {ledger.identity.get(key)}, "
                        f"here it is {identity.get(key)}. Leave it out."
                    )
            found += _witnessed(ledger, norm)
            attacks |= {unit.attack: None for unit in ledger.units()}
    rows = collect(notes, found, len(samples))
    if not rows:
        raise LedgerError("No certificate came to its end here. Run the same command again to finish it.")
    right = {row.sample for row in samples if row.prediction == row.label}
    reach: dict[int, float] = {}
    for one in found:
        if one.sample in right:
            reach[one.sample] = min(one.distance, reach.get(one.sample, one.distance))
    return Certificates(
        identity=identity,
        norm=norm,
        n=len(samples),
        correct=len(right),
        rows=rows,
        reach=reach,
        attacks=tuple(attacks),
        seal=seal,
    )


def _witnessed(ledger: Ledger, norm: str) -> Iterator[Witnessed]:
    """The witnesses that stand in a batch of one, with their distance measured anew in a norm."""
    for unit in ledger.units():
        for one in ledger.witnesses(unit=unit.key):
            if one.alone:
                change = (one.x_adv.astype(np.float64) - ledger.image(one.sample).astype(np.float64)).ravel()
                yield Witnessed(one.sample, _length(change, norm), unit.attack)


def _length(change: np.ndarray, norm: str) -> float:
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return float(np.linalg.norm(change, order))
