"""Certificates go to the ledger, part by part, so that a run that was cut off goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.certificates.base import Certificate, Certified, Long
from verigrad.core.classifier import device_of
from verigrad.core.errors import VerigradError
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.ledger.store import Ledger

# The kind of the notes in which a ledger keeps what was certified.
NOTE = "certified"
# Images in a part, unless the certificate says otherwise.
PART = 20


def certify(
    certificate: Certificate,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ledger: Ledger,
    *,
    seed: int,
    label: str | None = None,
    part: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Certifies images part by part and notes each part as it ends; parts that the ledger holds are not run again.

    A certificate that fits something to all images has one part.

    Args:
        x, y: (N, C, H, W) in [0, 1] and (N,); their places are the samples' numbers.
        seed: of the run; each sample draws from a stream of its own, whatever its part.
        label: how the certificate is called in reports; by its full spec where nothing is given.
        part: images in a part; as many as the certificate wants by default, 20 if it does not say.
        progress: called with (images done, images in all), first with what the ledger already held; within a part by
            certificates that take long, also where no further image is done.

    Raises:
        VerigradError: a certificate gives a radius that is negative or not finite.
        LedgerError: the ledger cannot be written.
    """
    spec = catalog.describe(certificate)
    known = ledger.notes(NOTE)
    wanted = certificate.part if isinstance(certificate, Long) else PART
    size = len(x) if certificate.fits_data else part or wanted
    parts = torch.arange(len(x)).split(size)
    names = [f"{spec}#{rows[0]}-{rows[-1]}" for rows in parts]
    done = sum(len(rows) for rows, name in zip(parts, names, strict=True) if name in known)
    if progress is not None:
        progress(done, len(x))
    for rows, name in zip(parts, names, strict=True):
        if name in known:
            continue
        device = device_of(model)
        # By name alone: a batch size is part of the spec, and shall change no draw.
        generator = seeded(seed, f"certify/{spec.partition(':')[0]}", rows.tolist(), device=device)
        told = partial(_settled, progress, done, len(x))
        found = _certified(certificate, model, x[rows].to(device), y[rows].to(device), generator, told)
        _check(spec, found)
        ledger.put_note(NOTE, name, _noted(spec, label or spec, certificate, rows, found))
        done += len(rows)
        if progress is not None:
            progress(done, len(x))


def _certified(
    certificate: Certificate,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: SampleGenerator,
    told: Callable[[int], None],
) -> Certified:
    if isinstance(certificate, Long):
        return certificate.watched(model, x, y, generator=generator, told=told)
    return certificate(model, x, y, generator=generator)


def _settled(progress: Callable[[int, int], None] | None, before: int, total: int, settled: int) -> None:
    if progress is not None:
        progress(before + settled, total)


def _check(spec: str, found: Certified) -> None:
    bad = ~torch.isfinite(found.radius) | (found.radius < 0)
    if bad.any():
        raise VerigradError(
            f"The certificate {spec} gave the radius {float(found.radius[bad][0])}, which is no distance. "
            "This is a fault of verigrad or of the model; verigrad inspect says more of the model."
        )


def _noted(spec: str, label: str, certificate: Certificate, rows: Tensor, found: Certified) -> dict[str, Any]:
    return {
        "certificate": spec,
        "label": label,
        "norm": certificate.norm,
        "subject": certificate.subject,
        "honesty": str(found.honesty),
        "alpha": found.alpha,
        "assumptions": list(found.assumptions),
        "facts": {name: float(value) for name, value in found.facts.items()},
        "samples": rows.tolist(),
        "radius": found.radius.tolist(),
        "predicted": found.predicted.tolist(),
        "abstained": found.abstained.tolist(),
        "forwards": found.forwards.tolist(),
        "backwards": found.backwards.tolist(),
    }
