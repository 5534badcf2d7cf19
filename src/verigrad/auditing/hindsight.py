"""Checks that can be made only when the attacks are done: what they met, and how the model is where they lead."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from verigrad.attacks.pgd import PGD
from verigrad.auditing.foreign import Foreign
from verigrad.auditing.health import finite_difference_in_attack
from verigrad.auditing.patient import Check, Patient, measured
from verigrad.auditing.summary import Step
from verigrad.core.classifier import device_of, left_as_found, predict
from verigrad.core.seeds import derive_seed, seeded
from verigrad.evaluation.look import fixed_draws
from verigrad.evaluation.subject import Subject
from verigrad.ledger.schema import Outcome
from verigrad.ledger.store import Ledger

SCOUT = PGD(steps=4, score="margin", keep="last")
"""Leads to where an attack that trusts the gradient ends."""

AWAY = "health_in_attack"
"""The kind under which a ledger keeps what `away` found."""


def blind(ledger: Ledger, steps: list[Step], left: frozenset[int]) -> list[Check]:
    """Two checks that appear where they fire: at samples of `left`, which nothing broke, attacks had nothing to go by.
    Such samples uphold no claim.
    """
    margins = [step for step in steps if step.stage == "escalation" and "cross_entropy" not in step.name]
    return [
        *_met(
            _samples(ledger, steps, {Outcome.NON_FINITE_LOGITS, Outcome.NON_FINITE_GRADIENT}) & left,
            left,
            "non_finite_in_attack",
            "logits and gradients stay finite where attacks lead",
            "NaN or infinite",
        ),
        *_met(
            _samples(ledger, margins, {Outcome.ZERO_GRADIENT}) & left,
            left,
            "zero_gradient_in_attack",
            "the margin has a gradient where attacks lead",
            "exactly zero",
        ),
    ]


def _samples(ledger: Ledger, steps: Iterable[Step], outcomes: set[Outcome]) -> set[int]:
    results = (result for step in steps for key in step.attempt.units for result in ledger.results(key))
    return {result.sample for result in results if result.status in outcomes}


def _met(met: set[int], left: frozenset[int], name: str, label: str, what: str) -> list[Check]:
    if not met:
        return []
    return [
        Check(
            name=name,
            label=label,
            value=len(met) / len(left),
            limit="no sample",
            fired=True,
            severity="masking",
            detail=f"At {len(met)} of the {len(left)} samples that are left an attack met logits or gradients that are "
            f"{what}.",
        )
    ]


def away(subject: Subject, asked: tuple[int, ...], foreign: Foreign) -> list[Check]:
    """The margin's gradient against finite differences once more, where `SCOUT` leads from some samples: a mask may
    show there alone. Nothing, if none of them is still classified rightly there.

    Args:
        asked: numbers of samples, the most wanted first; where predictions depend on batch-mates, those in the batch of
            the first are looked at.
    """
    samples = subject.batch_of(asked[0] // subject.batch) if subject.coupled else tuple(sorted(asked))
    device, rows = device_of(subject.model), torch.tensor(samples)
    x, y = subject.x[rows].to(device), subject.y[rows].to(device)
    with fixed_draws(derive_seed(AWAY, subject.seed), device):
        stream = seeded(subject.seed, AWAY, samples, device)
        ends = SCOUT(subject.model, x, y, subject.threat, generator=stream)
        right = predict(subject.model, ends.x_adv, batch=len(x)).argmax(1) == y
        kept = (right.cpu() & torch.isin(rows, torch.tensor(asked))).nonzero().squeeze(1)
        if not len(kept):
            return []
        patient = Patient(
            model=subject.model,
            x=ends.x_adv,
            y=y,
            rows=kept.to(device),
            threat=subject.threat,
            seed=subject.seed,
            foreign=foreign,
        )
        with left_as_found(subject.model):
            return [measured(finite_difference_in_attack(patient))]
