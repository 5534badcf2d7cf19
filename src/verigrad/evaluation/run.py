"""Units go to workers, and what comes back goes to the ledger."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch

from verigrad.attacks.base import Attack
from verigrad.core.errors import BadInput
from verigrad.evaluation.plan import Unit, plan
from verigrad.evaluation.subject import Subject as Subject
from verigrad.evaluation.work import Finished, Job, Parcel, Parts, perform, perform_sent
from verigrad.ledger.store import Ledger

Progress = Callable[[int, int], None]

# Units that an executor holds at once: enough that no worker waits.
UNDER_WAY = 4 * (os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attack on some samples, as the ledger holds it.

    Args:
        attack: the full spec.
        attempted: the samples that were attacked, by number: those asked for whose clean prediction is right.
        broken: those with a witness; `alone`: those whose witness also stands in a batch of one.
        forwards, backwards: passes of the attack over all samples it had to attack; `judging`: forwards of the judge.
        seconds: wall time of the attack, summed over units and so over workers.
        statuses: how many of `attempted` ended with which `Outcome`.
        units: the keys of its units, in order.
    """

    stage: str
    name: str
    attack: str
    attempted: tuple[int, ...]
    broken: frozenset[int]
    alone: frozenset[int]
    forwards: int
    backwards: int
    judging: int
    seconds: float
    statuses: Mapping[str, int]
    units: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An attempt that is to be made.

    Args:
        stage: 'claim', 'intervention' or 'escalation'.
        name: what the attempt is called in reports; with stage and spec it names the random numbers.
        samples: numbers of samples, which the ledger must hold (see `record_clean`).
        stream: names the random numbers, in place of stage, name and spec: two attempts of one stream draw the same.
    """

    stage: str
    name: str
    attack: Attack
    samples: Iterable[int]
    stream: str | None = None


def attempt(
    subject: Subject,
    ledger: Ledger,
    *,
    stage: str,
    name: str,
    attack: Attack,
    samples: Iterable[int],
    stream: str | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Attempt:
    """One of `attempts`; the arguments are those of `Wanted`."""
    wanted = Wanted(stage=stage, name=name, attack=attack, samples=samples, stream=stream)
    return attempts(subject, ledger, [wanted], executor=executor, progress=progress)[0]


def attempts(
    subject: Subject,
    ledger: Ledger,
    wanted: Sequence[Wanted],
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[Attempt]:
    """Attacks samples unit by unit and records each unit as it ends; units that are in the ledger are not run again.

    All attempts are planned before the first is made, so an executor has all their units at once. The same call after a
    kill gives the same numbers. Samples that the ledger shows with a wrong clean prediction are left out. A classifier
    whose predictions depend on batch-mates is attacked in whole consecutive batches of the data.

    Args:
        executor: where units run; None means here, one after the other. The model must be picklable for any other.
        progress: called with (samples done, samples in all), first with what the ledger already held.

    Raises:
        BadInput: a sample that the ledger does not hold, or that has another label there; an attack without a spec, or
            with a result of the wrong shape; a model or attack that cannot be sent to a worker.
        LedgerError: the ledger cannot be written.
    """
    plans = [
        plan(
            subject,
            stage=one.stage,
            name=one.name,
            attack=one.attack,
            samples=_right(subject, ledger, one.samples),
            stream=one.stream,
        )
        for one in wanted
    ]
    units = [unit for part in plans for unit in part]
    unmade = _unmade(ledger, units)
    total = sum(len(unit.samples) for unit in units)
    done = total - sum(len(unit.samples) for unit, _ in unmade)
    if progress is not None:
        progress(done, total)
    with closing(_performed(subject, unmade, executor)) as performed:
        for finished in performed:
            ledger.record(*finished)
            done += finished.unit.attempted
            if progress is not None:
                progress(done, total)
    return [_attempt(ledger, one.stage, one.name, part) for one, part in zip(wanted, plans, strict=True)]


def _right(subject: Subject, ledger: Ledger, samples: Iterable[int]) -> list[int]:
    known = {row.sample: row for row in ledger.samples()}
    wanted = sorted({int(sample) for sample in samples})
    for sample in wanted:
        if sample not in known:
            raise BadInput(f"Sample {sample} has no clean prediction in the ledger. Record it before it is attacked.")
        if known[sample].label != int(subject.y[sample]):
            labels = f"{known[sample].label} in the ledger and {int(subject.y[sample])} in the data"
            raise BadInput(f"Sample {sample} has label {labels}. Give the data that the ledger was made with.")
    return [sample for sample in wanted if known[sample].prediction == known[sample].label]


def _unmade(ledger: Ledger, units: Sequence[Unit]) -> list[tuple[Unit, int]]:
    """The units that are still to be run, with their places in the ledger: in order, behind the attempts before these.

    Raises:
        BadInput: a unit is asked for twice.
    """
    keys = Counter(unit.key for unit in units)
    if twice := next((key for key, count in keys.items() if count > 1), None):
        raise BadInput(f"The unit {twice!r} is asked for twice. Ask for each attempt once.")
    rows = ledger.units()
    known, taken = {row.key: row.ordinal for row in rows}, {row.ordinal for row in rows if row.key not in keys}
    # What was begun goes on where it began, unless something else has been put there since.
    first = next((known[unit.key] - place for place, unit in enumerate(units) if unit.key in known), None)
    if first is None or not taken.isdisjoint(range(first, first + len(units))):
        first = 1 + max(known.values(), default=-1)
    return [(unit, first + place) for place, unit in enumerate(units) if unit.key not in known]


def _job(subject: Subject, unit: Unit, ordinal: int) -> Job:
    rows = list(unit.rows)
    return Job(unit, ordinal, subject.x[rows].cpu().numpy(), subject.y[rows].cpu().numpy(), torch.get_num_threads())


def _performed(
    subject: Subject, unmade: Sequence[tuple[Unit, int]], executor: Executor | None
) -> Generator[Finished, None, None]:
    """The finished units, in whatever order they end. Images are copied for those only that are under way."""
    parts = Parts(subject.model, subject.threat, subject.coupled)
    if executor is None:
        yield from (perform(parts, _job(subject, *one)) for one in unmade)
        return
    if not unmade:
        return
    parcel = _packed(parts, [unit for unit, _ in unmade])
    queue = iter(unmade)
    waiting: set[Future[Finished]] = set()
    try:
        while True:
            under_way = islice(queue, max(0, UNDER_WAY - len(waiting)))
            waiting |= {executor.submit(perform_sent, parcel, _job(subject, *one)) for one in under_way}
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            # What came to its end is handed on before what failed is raised.
            yield from (future.result() for future in sorted(done, key=lambda one: one.exception() is not None))
    finally:
        for future in waiting:
            future.cancel()


def _packed(parts: Parts, units: Sequence[Unit]) -> Parcel:
    try:
        data = pickle.dumps(parts)
        for unit in {unit.spec: unit for unit in units}.values():
            pickle.dumps(unit)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        fix = "Define it at the top of a module, or run without an executor."
        raise BadInput(f"The model or the attack cannot be sent to a worker: {error}. {fix}") from None
    return Parcel(hashlib.sha256(data).hexdigest(), data)


def _attempt(ledger: Ledger, stage: str, name: str, units: Sequence[Unit]) -> Attempt:
    rows = {row.key: row for row in ledger.units(stage)}
    mine = [rows[unit.key] for unit in units]
    results = [result for unit in units for result in ledger.results(unit.key)]
    witnesses = [witness for unit in units for witness in ledger.witnesses(unit=unit.key)]
    return Attempt(
        stage=stage,
        name=name,
        attack=units[0].spec if units else "",
        attempted=tuple(sorted(result.sample for result in results)),
        broken=frozenset(witness.sample for witness in witnesses),
        alone=frozenset(witness.sample for witness in witnesses if witness.alone),
        forwards=sum(row.forwards for row in mine),
        backwards=sum(row.backwards for row in mine),
        judging=sum(row.judging for row in mine),
        seconds=sum(row.seconds for row in mine),
        statuses=dict(sorted(Counter(result.status for result in results).items())),
        units=tuple(unit.key for unit in units),
    )
