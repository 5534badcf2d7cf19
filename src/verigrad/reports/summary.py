"""What is drawn, gathered from the ledger: its summary, one line for each sample, and the witnesses that are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.schema import STAGES, SampleRow, UnitRow, WitnessRow
from verigrad.ledger.store import Ledger
from verigrad.reports.numbers import percent, points, stated

FORMAT = 1
SHOWN = 24

Summary = Mapping[str, Any]


class Line(NamedTuple):
    """One sample of the table. What is None is not known or does not apply.

    `state` is "wrong" (misclassified without an attack), "claim" (broken by the claim's attack), "later" (broken, but
    not by the claim's attack) or "stands" (nothing found); `attack` is the first one in order that broke it.
    """

    sample: int
    label: int
    prediction: int
    margin: float | None
    state: str
    attack: str | None
    distance: float | None
    adversarial: int | None
    alone: bool | None


class Proof(NamedTuple):
    """One witness that is drawn: `image` and `x_adv` are (C, H, W) in [0, 1]."""

    line: Line
    stage: str
    image: NDArray[np.float32]
    x_adv: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Material:
    """All that a page of one audit needs. `witnesses` counts the broken samples, `proofs` are the ones drawn."""

    summary: Summary
    lines: tuple[Line, ...]
    proofs: tuple[Proof, ...]
    witnesses: int

    @property
    def scale(self) -> float:
        """The largest change of a pixel among the proofs, for which the pictures use full colour; 0 without proofs."""
        return max((float(np.abs(proof.x_adv - proof.image).max(initial=0)) for proof in self.proofs), default=0.0)


def summary_of(ledger: Ledger) -> dict[str, Any]:
    """The ledger's summary, with every number that is not finite replaced by None.

    Raises:
        LedgerError: the audit has not come to its end, or the summary has another format.
    """
    summary = ledger.summary()
    if summary is None:
        raise LedgerError("The ledger holds no summary: its audit was cut off. Run the same audit again to finish it.")
    if summary.get("format") != FORMAT:
        raise LedgerError(
            f"The summary has format {summary.get('format')!r}, and these reports draw format {FORMAT}. "
            "Use the verigrad version that wrote it."
        )
    return _finite(summary)


def gather(ledger: Ledger, *, shown: int = SHOWN) -> Material:
    """Reads a finished ledger; the images of at most `shown` witnesses are loaded."""
    units = {unit.key: unit for unit in sorted(ledger.units(), key=_place)}
    first: dict[int, WitnessRow] = {}
    for key in units:
        if any(result.broken and result.sample not in first for result in ledger.results(key)):
            for witness in ledger.witnesses(unit=key):
                # Only the facts are kept: ten thousand images would not fit everywhere.
                first.setdefault(witness.sample, witness._replace(x_adv=np.empty(0, np.float32)))
    lines = tuple(_line(row, first.get(row.sample), units) for row in sorted(ledger.samples()))
    broken = [line for line in lines if line.sample in first]
    proofs = []
    for line in choose(broken, shown):
        unit = first[line.sample].unit
        x_adv = next(witness.x_adv for witness in ledger.witnesses(line.sample) if witness.unit == unit)
        proofs.append(Proof(line, units[unit].stage, ledger.image(line.sample), x_adv))
    return Material(summary=summary_of(ledger), lines=lines, proofs=tuple(proofs), witnesses=len(broken))


def choose(lines: Sequence[Line], limit: int) -> list[Line]:
    """At most `limit` broken samples that show much: in turn over the attacks, within each in turn over the labels.

    Witnesses that stand alone come before those that do not. The same lines always give the same choice.
    """
    by_attack = [list(group) for _, group in groupby(sorted(lines, key=_attack_key), _attack_key)]
    by_attack.sort(key=len, reverse=True)
    queues = [_in_turn(_by_label(group)) for group in by_attack]
    return sorted(_in_turn(queues)[:limit], key=lambda line: line.sample)


def claimed_text(summary: Summary) -> str:
    """The claim as it was stated, or as it was measured on the n samples."""
    if summary["claim"]["stated"] is not None:
        return stated(summary["claimed"])
    return percent(summary["claimed"], summary["n"])


def main_cause(summary: Summary) -> str | None:
    """The label of the main cause, or None where there is none."""
    name = summary["main_cause"]
    return next((str(cause["label"]) for cause in summary["causes"] if cause["name"] == name), name)


def gap_text(summary: Summary) -> str:
    """The gap in points, as the difference of the two numbers that are printed beside it wherever both are numbers."""
    gap, n = summary["gap"], summary["n"]
    texts = (claimed_text(summary), percent(summary["found"], n))
    if gap is None or not all(re.fullmatch(r"[\d.]+ %", text) for text in texts):
        return points(gap, n)
    claimed, found = (float(text.removesuffix(" %")) for text in texts)
    # A gap that rounding hides is told as less than one point.
    return points((claimed - found) / 100 if claimed != found else 1e-6 if gap > 0 else 0.0, n)


def in_words(text: str, summary: Summary) -> str:
    """A sentence of the audit with the names of health checks replaced by what they say does not hold.

    Only lists of names are replaced, "(coherence, float64)", "(coherence fired)" and ": coherence fired": an
    intervention may have the name of a check.
    """
    labels = {str(check["name"]): str(check["label"]) for check in summary["health"]}
    names = "|".join(map(re.escape, labels))
    if not names:
        return text

    def told(listed: re.Match[str]) -> str:
        named = [f"“{labels[name]}”" for name in listed["names"].split(", ")]
        what = f"{', '.join(named)} {'does' if len(named) == 1 else 'do'} not hold"
        return f"({what})" if listed[0].startswith("(") else f": {what}"

    several = rf"(?P<names>(?:{names})(?:, (?:{names}))*)"
    text = re.sub(rf"\({several}(?: fired)?\)", told, text)
    return re.sub(rf": {several} fired(?=\W|$)", told, text)


def _attack_key(line: Line) -> str:
    return line.attack or ""


def _by_label(lines: Iterable[Line]) -> list[list[Line]]:
    ordered = sorted(lines, key=lambda line: (line.label, line.alone is not True, line.sample))
    return [list(group) for _, group in groupby(ordered, lambda line: line.label)]


def _in_turn(queues: Sequence[Sequence[Line]]) -> list[Line]:
    """The first of each queue, then the second of each, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def _place(unit: UnitRow) -> tuple[int, int, str]:
    stage = STAGES.index(unit.stage) if unit.stage in STAGES else len(STAGES)
    return stage, unit.ordinal, unit.key


def _line(row: SampleRow, witness: WitnessRow | None, units: Mapping[str, UnitRow]) -> Line:
    if row.prediction != row.label:
        return Line(*row, "wrong", None, None, None, None)
    if witness is None:
        return Line(*row, "stands", None, None, None, None)
    unit = units[witness.unit]
    state = "claim" if unit.stage == "claim" else "later"
    return Line(*row, state, unit.name, witness.distance, witness.prediction, witness.alone)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
