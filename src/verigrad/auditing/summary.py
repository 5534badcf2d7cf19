"""The summary of an audit: what `audit.json` holds and the reports draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from verigrad import catalog
from verigrad.auditing.claim import Claim
from verigrad.auditing.patient import Check
from verigrad.auditing.verdict import Facts, Finding, Judgement
from verigrad.data.images import Images
from verigrad.evaluation.run import Attempt, Subject
from verigrad.ledger.schema import Outcome
from verigrad.ledger.statistics import clopper_pearson, wilson
from verigrad.ledger.store import Ledger

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One attack as it was run."""

    stage: str
    name: str
    attack: str
    attempt: Attempt


def summarise(
    *,
    title: str,
    model: nn.Module,
    images: Images,
    ledger: Ledger,
    subject: Subject,
    claim: Claim,
    correct: tuple[int, ...],
    facts: Facts,
    judgement: Judgement,
    causes: list[Finding],
    checks: list[Check],
    steps: list[Step],
    escalation: dict[str, Any],
) -> dict[str, Any]:
    """JSON-ready. Fractions are of all n samples; no number is ever NaN."""
    n = facts.n
    claimed = facts.stated if facts.stated is not None else facts.measured / n
    masking = [cause for cause in causes if cause.kind == "masking" and cause.confirmed]
    shown = masking or [cause for cause in causes if cause.confirmed]
    contradicted = judgement.verdict in ("obfuscated", "overstated")
    return {
        "format": FORMAT,
        "title": title,
        "model": {"ref": ledger.identity["model"], "parameters": sum(p.numel() for p in model.parameters())},
        "data": {
            "ref": ledger.identity["data"] or images.name,
            "n": n,
            "classes": images.classes,
            "shape": list(images.x.shape[1:]),
        },
        "threat": str(subject.threat),
        "batch": subject.batch,
        "batch_coupled": subject.coupled,
        "verdict": judgement.verdict,
        "reasons": list(judgement.reasons),
        "clean": len(correct) / n,
        "claimed": claimed,
        "claim": {
            "stated": facts.stated,
            "attack": catalog.describe(claim.attack),
            "measured": facts.measured / n,
        },
        "found": facts.found / n,
        "found_alone": _found_alone(ledger, len(correct), n) if subject.coupled else None,
        "gap": claimed - facts.found / n,
        "n": n,
        "interval": list(clopper_pearson(facts.found, n)),
        "gap_interval": list(wilson(facts.measured - facts.found, n)),
        "main_cause": shown[0].name if contradicted and shown else None,
        "causes": [{**asdict(cause), "interval": list(cause.interval)} for cause in causes],
        "attacks": waterfall(steps, correct, n),
        "health": [check.as_json() for check in checks],
        "escalation": {
            **escalation,
            "rounds": [
                {"name": step.name, "attempted": len(step.attempt.attempted), "broken": len(step.attempt.broken)}
                for step in steps
                if step.stage == "escalation"
            ],
        },
        "errors": {
            "non_finite_logits": _count(steps, Outcome.NON_FINITE_LOGITS),
            "non_finite_gradients": _count(steps, Outcome.NON_FINITE_GRADIENT),
        },
        "identity": ledger.identity,
        "versions": ledger.identity["versions"],
        "seal": ledger.seal(),
    }


def waterfall(steps: list[Step], correct: tuple[int, ...], n: int) -> list[dict[str, Any]]:
    """Each attack with the accuracy that it leaves alone, and the one that it leaves after all before it.

    Samples that an attack was not given stand for it as the claim's attack left them.
    """
    rows = []
    broken: set[int] = set()
    by_claim = len(steps[0].attempt.broken) if steps else 0
    for step in steps:
        new = step.attempt.broken - broken
        broken |= new
        alone = len(step.attempt.broken) + (by_claim if step.stage != "claim" else 0)
        if step.stage == "escalation":
            alone = len(broken)  # it was given only what everything before it had left
        rows.append(
            {
                "stage": step.stage,
                "name": step.name,
                "attack": step.attack,
                "attempted": len(step.attempt.attempted),
                "broken": len(step.attempt.broken),
                "added": len(new),
                "accuracy": (len(correct) - alone) / n,
                "remaining": (len(correct) - len(broken)) / n,
                "forwards": step.attempt.forwards,
                "backwards": step.attempt.backwards,
                "seconds": round(step.attempt.seconds, 3),
            }
        )
    return rows


def _found_alone(ledger: Ledger, correct: int, n: int) -> float:
    """Robust accuracy if only witnesses count that stand in a batch of their own."""
    return (correct - len({witness.sample for witness in ledger.witnesses() if witness.alone})) / n


def _count(steps: list[Step], outcome: Outcome) -> int:
    """How many times, over all attacks, a sample ended so."""
    return sum(step.attempt.statuses.get(outcome, 0) for step in steps)
