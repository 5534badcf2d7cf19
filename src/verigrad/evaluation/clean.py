"""What the classifier says of the images as they are."""

from __future__ import annotations

from collections.abc import Iterable

from verigrad.core.errors import BadInput
from verigrad.evaluation.judge import predictions
from verigrad.evaluation.look import look
from verigrad.evaluation.subject import Subject
from verigrad.ledger.schema import SampleRow
from verigrad.ledger.store import Ledger


def record_clean(subject: Subject, ledger: Ledger, samples: Iterable[int] | None = None) -> tuple[SampleRow, ...]:
    """Predicts clean samples (all of them by default) and records them with their images; returns their rows.

    Samples that are in the ledger are not predicted again. Where predictions depend on batch-mates the passes are over
    the fixed consecutive batches of the whole data.

    Raises:
        BadInput: a sample that the data does not have.
    """
    wanted = sorted({int(s) for s in (range(len(subject.x)) if samples is None else samples)})
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(subject.x):
        raise BadInput(f"Samples must be in 0 to {len(subject.x) - 1}. Got {wanted[0]} to {wanted[-1]}.")
    there = {row.sample for row in ledger.samples()}
    new = [sample for sample in wanted if sample not in there]
    if subject.coupled:
        batches = [subject.batch_of(number) for number in sorted({sample // subject.batch for sample in new})]
    else:
        batches = [tuple(new[start : start + subject.batch]) for start in range(0, len(new), subject.batch)]
    x, y = subject.x.cpu(), subject.y.cpu()
    logits = look(subject.model, (x[list(rows)] for rows in batches), stream="clean")
    told: dict[int, tuple[int, float | None]] = {}
    for rows, part in zip(batches, logits, strict=True):
        told |= zip(rows, predictions(part, y[list(rows)]), strict=True)
    rows = [SampleRow(sample, int(y[sample]), *told[sample]) for sample in new]
    ledger.put_samples(rows, [x[sample].numpy() for sample in new])
    asked = set(wanted)
    return tuple(row for row in ledger.samples() if row.sample in asked)
