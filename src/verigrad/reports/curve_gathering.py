"""Reads the ledgers of a ladder of threats, one ledger a level, into one curve."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.identity import differences
from verigrad.ledger.store import Ledger
from verigrad.reports.curve import LADDER, NOTE, Curve, Level, Row, folder_of


def level_folders(folder: str | Path) -> list[str]:
    """The names of the folders below `folder` that look like levels with a ledger."""
    return sorted(path.parent.name for path in Path(folder).glob("eps-*/ledger.sqlite"))


def gather_curve(folder: str | Path) -> Curve:
    """Reads the ledgers of all levels below `folder`. Attacks that were cut off are left out.

    Raises:
        LedgerError: there is no level, one of the ladder is missing, or no attack came to its end.
    """
    folder = Path(folder)
    found = level_folders(folder)
    if not found:
        raise LedgerError(f"There is no curve in {str(folder)!r}: no eps-*/ledger.sqlite.")
    with Ledger.read(folder / found[0] / "ledger.sqlite") as ledger:
        labels = str(ledger.identity.get(LADDER, found[0].removeprefix("eps-"))).split(",")
    with ExitStack() as stack:
        paths = [folder / folder_of(label) / "ledger.sqlite" for label in labels]
        ledgers = [stack.enter_context(Ledger.read(path)) for path in paths]
        _check_one_run(ledgers)
        return _curve(tuple(map(_level, labels, ledgers)), ledgers)


def _check_one_run(ledgers: list[Ledger]) -> None:
    first, *others = ({**ledger.identity, "threat": ""} for ledger in ledgers)
    for ledger, identity in zip(ledgers[1:], others, strict=True):
        if differing := differences(first, identity):
            key, stored, given = differing[0]
            ours, theirs = f"{ledgers[0].path} has {key} {stored}", f"{ledger.path} has {given}"
            raise LedgerError(f"The levels of one curve must be of one run, but {ours} and {theirs}.")


def _level(label: str, ledger: Ledger) -> Level:
    eps = float(str(ledger.identity["threat"]).partition(":")[2])
    return Level(label, eps, ledger.path.parent.name, ledger.seal())


def _curve(levels: tuple[Level, ...], ledgers: list[Ledger]) -> Curve:
    done = [ledger.notes(NOTE) for ledger in ledgers]
    whole = {label: told for label, told in done[-1].items() if told["once"] or all(label in notes for notes in done)}
    if not whole:
        raise LedgerError("No attack of this curve came to its end. Run the same command again to finish it.")
    samples = ledgers[0].samples()
    sightings = _sightings(levels, ledgers)
    reaches: list[dict[int, float]] = []
    rows = []
    for label, told in whole.items():
        seen = sightings.get(told["attack"], _Sightings({}, {}, 0, 0))
        reaches.append(seen.reach)
        broken = _counts(seen.reach.values(), levels)
        missed = sum(_place(seen.reach[sample], levels) < place for sample, place in seen.place.items())
        facts = told["attack"], told["kind"], told["once"]
        rows.append(Row(label, *facts, broken, 0 if told["once"] else missed, seen.forwards, seen.backwards))
    nearest: dict[int, float] = {}
    for reach in reaches:
        _nearer(nearest, reach)
    identity = ledgers[-1].identity
    shape = ledgers[0].image(samples[0].sample).shape
    most = max(Counter(row.label for row in samples).values())
    return Curve(
        identity=identity,
        n=len(samples),
        correct=sum(row.prediction == row.label for row in samples),
        levels=levels,
        rows=tuple(rows),
        worst=_counts(nearest.values(), levels),
        ceiling=tuple(most if level.eps >= _all_alike(identity["threat"], shape) else None for level in levels),
    )


class _Sightings(NamedTuple):
    """What one attack did over all levels: by sample the smallest eps at which it is proven broken, and the first level
    whose own run broke it; and its passes."""

    reach: dict[int, float]
    place: dict[int, int]
    forwards: int
    backwards: int


def _sightings(levels: tuple[Level, ...], ledgers: list[Ledger]) -> dict[str, _Sightings]:
    found: dict[str, _Sightings] = {}
    for place, (level, ledger) in enumerate(zip(levels, ledgers, strict=True)):
        for unit in ledger.units():
            seen = found.get(unit.attack, _Sightings({}, {}, 0, 0))
            # In a joint batch the others may be further away than the sample itself.
            joint = ledger.batch(unit.key) is not None
            for result in ledger.results(unit.key):
                if result.broken:
                    far = level.eps if joint or result.distance is None else min(result.distance, level.eps)
                    _nearer(seen.reach, {result.sample: far})
                    seen.place.setdefault(result.sample, place)
            passes = seen.forwards + unit.forwards, seen.backwards + unit.backwards
            found[unit.attack] = _Sightings(seen.reach, seen.place, *passes)
    return found


def _nearer(reach: dict[int, float], other: Mapping[int, float]) -> None:
    for sample, far in other.items():
        reach[sample] = min(far, reach.get(sample, math.inf))


def _counts(reach: Iterable[float], levels: tuple[Level, ...]) -> tuple[int, ...]:
    known = list(reach)
    return tuple(sum(far <= level.eps for far in known) for level in levels)


def _place(far: float, levels: tuple[Level, ...]) -> int:
    return next(place for place, level in enumerate(levels) if far <= level.eps)


def _all_alike(threat: str, shape: tuple[int, ...]) -> float:
    """From which eps every image in [0, 1] can become the same grey one (under L0, any one)."""
    channels, *sides = shape
    pixels = math.prod(sides)
    return {"linf": 0.5, "l2": math.sqrt(channels * pixels) / 2, "l0": pixels}[threat.partition(":")[0]]
