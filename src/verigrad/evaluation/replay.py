"""Witnesses are shown to the classifier again: by forward passes alone, on the data as it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from verigrad.core.classifier import batch_coupled
from verigrad.core.threat import Threat
from verigrad.evaluation.judge import wrong
from verigrad.evaluation.look import look
from verigrad.ledger.schema import BatchRow, SampleRow, WitnessRow
from verigrad.ledger.store import Ledger


class Fallen(NamedTuple):
    """A witness that does not stand, and why, as the end of a sentence that begins with 'the witness'."""

    sample: int
    unit: str
    reason: str


class Replay(NamedTuple):
    """How many witnesses stand, and which do not."""

    stood: int
    fallen: tuple[Fallen, ...]


def replay(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    ledger: Ledger,
    batch: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Checks every witness of a ledger, each in the batch in which it was judged.

    A witness stands if its label and clean image are the data's, it is finite and inside the threat at the recorded
    distance, and the classifier errs on it. Where predictions depend on batch-mates it must err in its joint batch,
    which must be one of the fixed batches of the data with every mate inside the threat; and in a batch of one if the
    ledger says so.

    Args:
        x: (N, C, H, W) float32, the data in the order in which it was audited. y: (N,) int64.
        batch: the batch size of the audit.
        progress: called with (units done, units in all).
    """
    x, y = x.cpu(), y.cpu()
    samples = {row.sample: row for row in ledger.samples()}
    units = ledger.units()
    stood, fallen = 0, list[Fallen]()
    for place, unit in enumerate(units, start=1):
        witnesses = ledger.witnesses(unit=unit.key)
        reasons = dict(_unlike_data(witnesses, samples, ledger, x, y, threat))
        joint = ledger.batch(unit.key)
        if joint is None and not batch_coupled(model):
            standing = [witness for witness in witnesses if witness.sample not in reasons]
            reasons |= _right_together(model, standing, y)
        else:
            reasons |= _unlike_joint(model, witnesses, reasons, joint, x, y, threat, batch)
        fallen += [Fallen(w.sample, unit.key, reasons[w.sample]) for w in witnesses if w.sample in reasons]
        stood += len(witnesses) - len(reasons)
        if progress is not None:
            progress(place, len(units))
    return Replay(stood, tuple(fallen))


def _unlike_data(
    witnesses: tuple[WitnessRow, ...],
    samples: dict[int, SampleRow],
    ledger: Ledger,
    x: Tensor,
    y: Tensor,
    threat: Threat,
) -> Iterator[tuple[int, str]]:
    for witness in witnesses:
        sample = witness.sample
        if sample not in samples or not 0 <= sample < len(x):
            yield sample, f"is of sample {sample}, which the {'data' if sample in samples else 'ledger'} does not have"
        elif samples[sample].label != int(y[sample]):
            yield (
                sample,
                f"is of a sample labelled {int(y[sample])} in the data and {samples[sample].label} in the ledger",
            )
        elif not np.array_equal(ledger.image(sample), x[sample].numpy()):
            yield sample, "is of a clean image that is not the data's"
        elif reason := _outside(torch.from_numpy(witness.x_adv), x[sample], threat, witness.distance):
            yield sample, reason


def _outside(x_adv: Tensor, x: Tensor, threat: Threat, told: float | None = None) -> str | None:
    if x_adv.shape != x.shape:
        return f"has shape {tuple(x_adv.shape)}, the data's images have {tuple(x.shape)}"
    if not bool(torch.isfinite(x_adv).all()):
        return "is not finite"
    far = float(threat.distance(x_adv[None], x[None]))
    if not bool(threat.contains(x_adv[None], x[None])):
        return f"is outside {threat}, at distance {far:.6g}, or outside the box {list(threat.bounds)}"
    if told is not None and abs(far - told) > 1e-9 * (1 + far):
        return f"is at distance {far:.9g}, the ledger says {told:.9g}"
    return None


def _right_together(model: nn.Module, witnesses: list[WitnessRow], y: Tensor) -> dict[int, str]:
    """The witnesses of one unit as one batch: that is how they were judged."""
    if not witnesses:
        return {}
    labels = y[[witness.sample for witness in witnesses]]
    images = torch.from_numpy(np.stack([witness.x_adv for witness in witnesses]))
    (logits,) = look(model, [images], stream=witnesses[0].unit)
    return {w.sample: reason for w, reason in zip(witnesses, _not_wrong(logits, labels), strict=True) if reason}


def _unlike_joint(
    model: nn.Module,
    witnesses: tuple[WitnessRow, ...],
    known: dict[int, str],
    joint: BatchRow | None,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    batch: int,
) -> dict[int, str]:
    """What speaks against the witnesses in their joint batch, of those against which nothing is known."""
    left = [witness for witness in witnesses if witness.sample not in known]
    if not left:
        return {}
    fault = "has no joint batch in the ledger" if joint is None else _bad_joint(joint, x, threat, batch)
    if joint is None or fault is not None:
        return {witness.sample: str(fault) for witness in left}
    images, labels = torch.from_numpy(joint.x_adv), y[list(joint.samples)]
    (logits,) = look(model, [images], stream=joint.unit)
    together = dict(zip(joint.samples, _not_wrong(logits, labels), strict=True))
    singles = look(model, (torch.from_numpy(w.x_adv)[None] for w in left if w.alone), stream=joint.unit)
    alone = dict(zip((w.sample for w in left if w.alone), singles, strict=True))
    reasons: dict[int, str] = {}
    for witness in left:
        sample = witness.sample
        if sample not in together or not np.array_equal(joint.x_adv[joint.samples.index(sample)], witness.x_adv):
            reasons[sample] = "is not the image in its joint batch"
        elif reason := together[sample]:
            reasons[sample] = reason
        elif sample in alone and (reason := _not_wrong(alone[sample], y[sample : sample + 1])[0]):
            reasons[sample] = f"{reason} in a batch of one, where the ledger says it stands"
    return reasons


def _bad_joint(joint: BatchRow, x: Tensor, threat: Threat, batch: int) -> str | None:
    rows = joint.samples
    if not rows or not 0 <= min(rows) <= max(rows) < len(x) or len(rows) != len(joint.x_adv):
        return "stands in a joint batch that is not of this data"
    start = rows[0] // batch * batch
    if len(rows) > 1 and rows != tuple(range(start, min(start + batch, len(x)))):
        return f"stands in a joint batch that is not one of the data's batches of {batch}"
    for row, image in zip(rows, joint.x_adv, strict=True):
        if reason := _outside(torch.from_numpy(image), x[row], threat):
            return f"stands beside sample {row}, which {reason}"
    return None


def _not_wrong(logits: Tensor, y: Tensor) -> list[str | None]:
    errs, finite = wrong(logits, y).tolist(), torch.isfinite(logits).all(1).tolist()
    right = "is classified rightly"
    return [
        None if bad else right if real else "has no finite prediction" for bad, real in zip(errs, finite, strict=True)
    ]
