"""The verdict, by stated rules, from counts alone. No model and no torch: the same ledger gives the same verdict.

With n samples, of which the claim's attack leaves m and everything together leaves f:

* A stated claim is *contradicted* when it lies above the 95 % Clopper-Pearson interval of f/n. Where none is stated the
  claim is m/n, and it is contradicted when the gap m - f is material.
* k of n are *material* when k is at least `FEWEST` and its lower 95 % Clopper-Pearson limit is above `MATERIAL`.
* A masking cause is *shown* when a health check of its own fired, the witnesses that it adds are material among the
  samples it was tried on, they make up at least `EXPLAINS` of what was found among those, and their share is at least
  `EXCEEDS` times that of the same attack with more steps or more starts.
* obfuscated: contradicted, and a masking cause is shown. overstated: contradicted, and none is.
* upheld: not contradicted, the escalation converged, no masking check fired that was left unanswered, and
  the interval is no wider than `WIDEST`.
* undecided: all else, and always when the model is invalid or random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from verigrad.auditing.causes import CAUSES
from verigrad.ledger.statistics import clopper_pearson, wilson

Verdict = Literal["upheld", "overstated", "obfuscated", "undecided"]

MATERIAL = 0.005  # half a point: below it, a rerun of the same attack with another seed may differ as much
FEWEST = 3
EXPLAINS = 0.5
EXCEEDS = 2.0  # an honest net whose loss is small gives way as often to restarts as to rescaled logits
WIDEST = 0.25


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One intervention in counts: how many survivors of the claim it was given, how many it broke, and how many of
    these anything broke (`reachable`)."""

    cause: str
    name: str
    attempted: int
    witnesses: int
    reachable: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One cause as it is reported."""

    name: str
    label: str
    kind: str
    intervention: str
    witnesses: int
    attempted: int
    share: float
    interval: tuple[float, float]
    confirmed: bool
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the verdict rests on. `fired` maps a fired check to its severity; `answered` are fired checks whose
    matching change was part of the attacks that went on to the end."""

    n: int
    measured: int
    found: int
    stated: float | None
    fired: dict[str, str]
    answered: frozenset[str]
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reasons, sentences for people."""

    verdict: Verdict
    reasons: tuple[str, ...]


def material(k: int, n: int) -> bool:
    """Whether k of n is more than noise."""
    return k >= FEWEST and clopper_pearson(k, n).low > MATERIAL


def findings(tried: list[Tried], fired: dict[str, str], labels: dict[str, str] | None = None) -> list[Finding]:
    """One finding for each cause that added a witness: shown masking causes, the specific first, then by share."""
    best: dict[str, Tried] = {}
    for one in tried:
        if one.witnesses and (one.cause not in best or _share(one) > _share(best[one.cause])):
            best[one.cause] = one
    repeated = max((_share(one) for one in tried if one.cause in ("steps", "restarts")), default=0.0)
    made = []
    for name, one in best.items():
        cause = CAUSES[name]
        checks = [check for check in cause.confirmed_by if check in fired]
        enough = material(one.witnesses, one.attempted) and one.witnesses >= EXPLAINS * one.reachable
        if cause.kind == "masking":
            enough = enough and _share(one) >= EXCEEDS * repeated
        confirmed = enough and (bool(checks) or cause.kind == "effort")
        made.append(
            Finding(
                name=name,
                label=(labels or {}).get(name, cause.label),
                kind=cause.kind,
                intervention=one.name,
                witnesses=one.witnesses,
                attempted=one.attempted,
                share=_share(one),
                interval=wilson(one.witnesses, one.attempted),
                confirmed=confirmed,
                evidence=_evidence(one, cause.kind, checks, enough),
            )
        )
    order = list(CAUSES)
    made.sort(
        key=lambda f: (
            not (f.confirmed and f.kind == "masking"),
            CAUSES[f.name].general,
            -f.share,
            order.index(f.name),
        )
    )
    return made


def judge(facts: Facts, causes: list[Finding]) -> Judgement:
    """Applies the rules of this page."""
    low, high = clopper_pearson(facts.found, facts.n)
    invalid = [name for name, severity in facts.fired.items() if severity == "invalid"]
    if facts.n == 0:
        return Judgement(verdict="undecided", reasons=("There are no samples.",))
    if invalid:
        return Judgement(verdict="undecided", reasons=(f"The model cannot be judged: {', '.join(invalid)} fired.",))
    if "randomness" in facts.fired:
        return Judgement(
            verdict="undecided",
            reasons=("Predictions are random: a witness found on one draw need not stand on the next.",),
        )
    contradiction = _contradiction(facts, low, high)
    if contradiction:
        return _contradicted(contradiction, facts, causes)
    return _standing(facts, high - low, causes)


def _contradiction(facts: Facts, low: float, high: float) -> str:
    """The sentence that says how the claim is contradicted, or nothing."""
    gap = facts.measured - facts.found
    if facts.stated is not None and facts.stated > high:
        return f"The stated {facts.stated:.1%} lies above the 95 % interval [{low:.1%}, {high:.1%}] of what was found."
    if facts.stated is None and material(gap, facts.n):
        return f"{gap} of {facts.n} samples survive the claim's attack and are broken by another one inside the threat."
    return ""


def _shown(causes: list[Finding]) -> str:
    return "; ".join(cause.label for cause in causes if cause.kind == "masking" and cause.confirmed)


def _open(facts: Facts) -> str:
    return ", ".join(n for n, severity in facts.fired.items() if severity == "masking" and n not in facts.answered)


def _contradicted(reason: str, facts: Facts, causes: list[Finding]) -> Judgement:
    if shown := _shown(causes):
        return Judgement(verdict="obfuscated", reasons=(reason, f"The claim's attack was blinded: {shown}."))
    if doubts := _open(facts):
        why = f"Gradients cannot be trusted ({doubts} fired), but no intervention showed why: less may be left."
    else:
        why = "No masking cause was shown by intervention and by health: a better attack was enough."
    return Judgement(verdict="overstated", reasons=(reason, why))


def _standing(facts: Facts, width: float, causes: list[Finding]) -> Judgement:
    doubts = []
    if open_checks := _open(facts):
        doubts.append(f"The claim was not contradicted, but gradients cannot be trusted: {open_checks} fired.")
    if not facts.converged:
        doubts.append("The escalation did not converge: its last rounds still broke samples.")
    if width > WIDEST:
        doubts.append(f"The 95 % interval is {width:.0%} wide: {facts.n} samples are too few.")
    if doubts:
        return Judgement(verdict="undecided", reasons=tuple(doubts))
    gap = facts.measured - facts.found
    more = f"all attacks together break {gap} more" if gap else "no attack broke any more"
    reasons = [f"Of the samples that survive the claim's attack {more}, and the escalation converged."]
    if shown := _shown(causes):
        reasons.append(f"The stated number holds, though the attack behind it was blinded: {shown}.")
    return Judgement(verdict="upheld", reasons=tuple(reasons))


def _share(one: Tried) -> float:
    return one.witnesses / one.attempted if one.attempted else 0.0


def _evidence(one: Tried, kind: str, checks: list[str], enough: bool) -> str:
    text = f"{one.name} breaks {one.witnesses} of the {one.attempted} survivors it was tried on"
    if not enough:
        return text + "; too few to be the cause, or no more than repetition breaks."
    if kind == "effort":
        return text + "."
    return text + (f"; health agrees ({', '.join(checks)})." if checks else "; no health check agrees.")
