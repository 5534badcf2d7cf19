"""What was certified, beside what was found: radii, accuracy against radius, and witnesses inside a radius."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

FORMAT = 1
# The kind of the notes in which a ledger keeps what was certified.
NOTE = "certified"
MODEL = "model"
# How far inside a radius a witness must lie to contradict it: float32 pixels are no finer.
SLACK = 1e-6


class Witnessed(NamedTuple):
    """An error seen at some distance from a sample, in the certificates' norm, and the attack that found it."""

    sample: int
    distance: float
    attack: str


class Contradiction(NamedTuple):
    """A witness inside a certified radius."""

    sample: int
    radius: float
    distance: float
    attack: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One certificate on all samples: its full spec, and as it was written. `radius` is by sample; `facts` are means
    over its parts, by their images.

    contradictions: the nearest witness of each sample whose radius it contradicts; `compared`: the samples with a
    radius for which some witness is known. Both are None where the certificate is not about the model attacked.
    """

    certificate: str
    label: str
    subject: str
    honesty: str
    alpha: float | None
    assumptions: tuple[str, ...]
    facts: Mapping[str, float]
    radius: Mapping[int, float]
    abstained: int
    forwards: int
    backwards: int
    contradictions: tuple[Contradiction, ...] | None
    compared: int | None

    @property
    def certified(self) -> int:
        return sum(radius > 0 for radius in self.radius.values())

    @property
    def mean(self) -> float:
        """The mean radius over all samples, wrong ones with 0 (the average certified radius of Zhai et al. 2020)."""
        return math.fsum(self.radius.values()) / len(self.radius)

    @property
    def median(self) -> float:
        ordered = sorted(self.radius.values())
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    @property
    def allowed(self) -> int | None:
        """How many contradictions its class allows: none if sound, alpha of the radii if probabilistic; an estimate
        promises nothing."""
        if self.honesty == "sound":
            return 0
        return None if self.alpha is None else math.floor(self.alpha * self.certified)

    def broken_promise(self) -> bool:
        return self.contradictions is not None and self.allowed is not None and len(self.contradictions) > self.allowed

    def share(self, radius: float) -> float:
        """Of all samples, those certified at a radius or beyond; at 0 those with any radius."""
        return sum(r >= radius and r > 0 for r in self.radius.values()) / len(self.radius)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """All that is drawn. `reach`: by sample, the nearest error that any attack found; `attacks`: those that looked."""

    identity: Mapping[str, Any]
    norm: str
    n: int
    correct: int
    rows: tuple[Row, ...]
    reach: Mapping[int, float]
    attacks: tuple[str, ...]
    seal: str

    def left(self, radius: float) -> float:
        """Of all samples, those that are right and for which no error is known within a radius."""
        return (self.correct - sum(far <= radius for far in self.reach.values())) / self.n

    @property
    def furthest(self) -> float:
        """The largest radius or nearest error that there is to show."""
        found = [radius for row in self.rows for radius in row.radius.values()]
        return max([*found, *self.reach.values()], default=0.0)


def collect(notes: Iterable[Mapping[str, Any]], witnessed: Sequence[Witnessed], n: int) -> tuple[Row, ...]:
    """One row for each certificate that was seen to its end on all n samples, in the order of the notes."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for note in notes:
        parts.setdefault(note["certificate"], []).append(note)
    whole = {spec: told for spec, told in parts.items() if sum(len(note["samples"]) for note in told) == n}
    return tuple(_row(spec, told, witnessed) for spec, told in whole.items())


def _row(spec: str, parts: Sequence[Mapping[str, Any]], witnessed: Sequence[Witnessed]) -> Row:
    first = parts[0]
    radius = {s: r for note in parts for s, r in zip(note["samples"], note["radius"], strict=True)}
    known = [one for one in witnessed if radius.get(one.sample, 0.0) > 0]
    nearest: dict[int, Contradiction] = {}
    for one in sorted(known, key=lambda one: one.distance):
        if one.distance < radius[one.sample] * (1 - SLACK) - SLACK:
            nearest.setdefault(one.sample, Contradiction(one.sample, radius[one.sample], one.distance, one.attack))
    comparable = first["subject"] == MODEL
    return Row(
        certificate=spec,
        label=first["label"],
        subject=first["subject"],
        honesty=first["honesty"],
        alpha=first["alpha"],
        assumptions=tuple(dict.fromkeys(told for note in parts for told in note["assumptions"])),
        facts=_facts(parts),
        radius=radius,
        abstained=sum(map(sum, (note["abstained"] for note in parts))),
        forwards=sum(map(sum, (note["forwards"] for note in parts))),
        backwards=sum(map(sum, (note["backwards"] for note in parts))),
        contradictions=tuple(nearest[sample] for sample in sorted(nearest)) if comparable else None,
        compared=len({one.sample for one in known}) if comparable else None,
    )


def _facts(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    total = sum(len(note["samples"]) for note in parts)
    return {
        name: math.fsum(note["facts"][name] * len(note["samples"]) for note in parts) / total
        for name in parts[0]["facts"]
        if all(name in note["facts"] for note in parts)
    }


def as_dict(found: Certificates) -> dict[str, Any]:
    """The numbers for certificates.json."""
    return {
        "format": FORMAT,
        "identity": dict(found.identity),
        "norm": found.norm,
        "n": found.n,
        "correct": found.correct,
        "seal": found.seal,
        "attacks": list(found.attacks),
        "nearest_error": {str(sample): far for sample, far in sorted(found.reach.items())},
        "certificates": [
            {
                "certificate": row.certificate,
                "label": row.label,
                "honesty": row.honesty,
                "subject": row.subject,
                "alpha": row.alpha,
                "assumptions": list(row.assumptions),
                "certified": row.certified,
                "abstained": row.abstained,
                "mean_radius": row.mean,
                "median_radius": row.median,
                "forwards": row.forwards,
                "backwards": row.backwards,
                "compared": row.compared,
                "contradictions": None if row.contradictions is None else [c._asdict() for c in row.contradictions],
                "contradictions_allowed": row.allowed,
                "facts": dict(row.facts),
                "radius": [row.radius[sample] for sample in sorted(row.radius)],
            }
            for row in found.rows
        ],
    }
