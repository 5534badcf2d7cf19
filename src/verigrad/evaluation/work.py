"""One unit from attack to rows, in this process or in another."""

from __future__ import annotations

import math
import pickle
import threading
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Status
from verigrad.core.classifier import Coupled, batch_coupled, device_of, left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import derive_seed, seeded
from verigrad.core.threat import Threat
from verigrad.evaluation.judge import Judgement, judge, predictions
from verigrad.evaluation.look import fixed_draws
from verigrad.evaluation.plan import Unit
from verigrad.ledger.schema import BatchRow, Outcome, ResultRow, UnitRow, WitnessRow

OUTCOMES = {
    Status.DONE: Outcome.DONE,
    Status.ZERO_GRADIENT: Outcome.ZERO_GRADIENT,
    Status.NON_FINITE_GRADIENT: Outcome.NON_FINITE_GRADIENT,
    Status.NON_FINITE_LOGITS: Outcome.NON_FINITE_LOGITS,
}


class Parts(NamedTuple):
    """What all units of an attempt share."""

    model: nn.Module
    threat: Threat
    coupled: bool


class Job(NamedTuple):
    """One unit with its place in the plan and its rows of the data: x (B, C, H, W) float32, y (B,) int64.

    `threads` is the number of threads that torch adds up with: sums depend on it in their last bits.
    """

    unit: Unit
    ordinal: int
    x: np.ndarray
    y: np.ndarray
    threads: int


class Finished(NamedTuple):
    """What `Ledger.record` takes."""

    unit: UnitRow
    results: tuple[ResultRow, ...]
    witnesses: tuple[WitnessRow, ...]
    batch: BatchRow | None


class Parcel(NamedTuple):
    """`Parts` as bytes, with a name by which a worker knows that it has opened them already."""

    name: str
    data: bytes


_opened = threading.local()


def perform_sent(parcel: Parcel, job: Job) -> Finished:
    """`perform` in a worker. Each thread opens its own copy, because an attack switches the model's mode and flags."""
    if getattr(_opened, "name", None) != parcel.name:
        _opened.parts = pickle.loads(parcel.data)
        _opened.name = parcel.name
    return perform(_opened.parts, job)


def perform(parts: Parts, job: Job) -> Finished:
    """Attacks the rows of one unit together and judges what comes back.

    Raises:
        BadInput: the attack's result has the wrong shape.
    """
    before = torch.get_num_threads()
    if before != job.threads:
        torch.set_num_threads(job.threads)
    try:
        x, y = torch.from_numpy(job.x), torch.from_numpy(job.y)
        result, seconds = _attack(parts, job.unit, x, y)
        judged = judge(parts.model, result.x_adv, x, y, parts.threat, coupled=parts.coupled, stream=job.unit.key)
    finally:
        if before != job.threads:
            torch.set_num_threads(before)
    return _rows(job, y, result, judged, parts.coupled, seconds)


def _attack(parts: Parts, unit: Unit, x: Tensor, y: Tensor) -> tuple[AttackResult, float]:
    """The attack's result, on the processor, and its seconds. The attack works on copies of the data."""
    device = device_of(parts.model)
    generator = seeded(unit.seed, unit.stream, unit.rows, device)
    model = Coupled(parts.model) if parts.coupled and not batch_coupled(parts.model) else parts.model
    started = time.perf_counter()
    with left_as_found(model), torch.enable_grad(), fixed_draws(derive_seed("attack", unit.key), device):
        copies = x.clone().to(device), y.clone().to(device)
        result = unit.attack(model, *copies, parts.threat, generator=generator)
        result = AttackResult(*(part.detach().cpu() for part in result))
    seconds = time.perf_counter() - started
    if result.x_adv.shape != x.shape or any(part.shape != y.shape for part in result[1:]):
        shapes = ", ".join(str(tuple(part.shape)) for part in result)
        expected = (
            f"The attack {unit.spec} must give x_adv of shape {tuple(x.shape)} and {len(y)} values of each other kind"
        )
        raise BadInput(f"{expected}. Got shapes {shapes}.")
    return result, seconds


def _rows(job: Job, y: Tensor, result: AttackResult, judged: Judgement, coupled: bool, seconds: float) -> Finished:
    unit = job.unit
    told = predictions(judged.logits, y)
    chosen = set(unit.samples)
    results: list[ResultRow] = []
    witnesses: list[WitnessRow] = []
    for row, sample in enumerate(unit.rows):
        if sample not in chosen:
            continue
        broken, far, (label, value) = bool(judged.broken[row]), float(judged.distance[row]), told[row]
        outcome = judged.refused[row] or (
            Outcome.NON_FINITE_LOGITS if label < 0 else _outcome(unit, result.status[row])
        )
        passes = int(result.forwards[row]), int(result.backwards[row])
        distance = far if math.isfinite(far) else None
        results.append(ResultRow(unit.key, sample, broken, distance, label, value, outcome, *passes))
        if broken:
            alone = bool(judged.alone[row])
            witnesses.append(WitnessRow(unit.key, sample, label, far, alone, judged.x_adv[row].numpy()))
    batch = BatchRow(unit.key, unit.rows, judged.x_adv.numpy()) if coupled and witnesses else None
    unit_row = UnitRow(
        key=unit.key,
        ordinal=job.ordinal,
        stage=unit.stage,
        name=unit.name,
        attack=unit.spec,
        chunk=unit.chunk,
        seed=unit.seed,
        attempted=len(results),
        forwards=int(result.forwards.sum()),
        backwards=int(result.backwards.sum()),
        seconds=seconds,
        judging=judged.forwards,
    )
    return Finished(unit_row, tuple(results), tuple(witnesses), batch)


def _outcome(unit: Unit, status: Tensor) -> Outcome:
    try:
        return OUTCOMES[Status(int(status))]
    except ValueError:
        raise BadInput(f"The attack {unit.spec} gave the status {int(status)}. It must be a code of Status.") from None
