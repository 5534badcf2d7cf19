"""An attack on some samples becomes units, one for each chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from verigrad.attacks.base import Attack
from verigrad.catalog import describe
from verigrad.core.errors import BadInput
from verigrad.evaluation.subject import Subject
from verigrad.ledger.identity import canonical


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One attack with one seed on one chunk of samples.

    `rows` go through the attack together and `samples` of them are recorded; they differ only where predictions depend
    on batch-mates. `spec` is the attack's full text, `chunk` the number of the chunk. `stream` names, with
    seed and sample, that sample's random numbers; the chunk has no part in it.
    """

    stage: str
    name: str
    attack: Attack
    spec: str
    chunk: int
    samples: tuple[int, ...]
    rows: tuple[int, ...]
    seed: int
    stream: str

    @property
    def key(self) -> str:
        """The unit's name in the ledger: readable, and different whenever anything above is."""
        parts = [self.stage, self.name, self.spec, self.chunk, self.samples, self.rows, self.seed, self.stream]
        return f"{self.stage}/{self.name}/{self.chunk}-{hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]}"


def plan(
    subject: Subject, *, stage: str, name: str, attack: Attack, samples: Iterable[int], stream: str | None = None
) -> tuple[Unit, ...]:
    """The units of one attack, in order: `subject.batch` samples a unit, by number.

    Where predictions depend on batch-mates a unit is one of the fixed consecutive batches of the whole data.

    Raises:
        BadInput: a sample that the data does not have, or an attack that is no frozen dataclass.
    """
    wanted = sorted({int(sample) for sample in samples})
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(subject.x):
        raise BadInput(f"Samples must be in 0 to {len(subject.x) - 1}. Got {wanted[0]} to {wanted[-1]}.")
    try:
        spec = describe(attack)
    except TypeError as error:
        raise BadInput(f"An attack must be a frozen dataclass, so that its settings can be recorded. {error}") from None
    if subject.coupled:
        numbers = sorted({sample // subject.batch for sample in wanted})
        rows = {number: subject.batch_of(number) for number in numbers}
        chunks = [
            (number, tuple(s for s in wanted if s // subject.batch == number), rows[number]) for number in numbers
        ]
    else:
        starts = range(0, len(wanted), subject.batch)
        parts = [tuple(wanted[start : start + subject.batch]) for start in starts]
        chunks = [(number, part, part) for number, part in enumerate(parts)]
    return tuple(
        Unit(
            stage=stage,
            name=name,
            attack=attack,
            spec=spec,
            chunk=number,
            samples=part,
            rows=rows,
            seed=subject.seed,
            stream=stream or f"{stage}/{name}/{spec}",
        )
        for number, part, rows in chunks
    )
