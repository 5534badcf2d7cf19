"""Certificates go to the ledger, part by part, so that a run that was cut off goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.certificates.base import Certificate, Certified
from verigrad.core.classifier import device_of
from verigrad.core.errors import VerigradError
from verigrad.core.seeds import seeded
from verigrad.ledger.store import Ledger

# The kind of the notes in which a ledger keeps what was certified.
NOTE = "certified"


def certify(
    certificate: Certificate,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ledger: Ledger,
    *,
    seed: int,
    part: int = 20,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Certifies images part by part and notes each part as it ends; parts that the ledger holds are not run again.

    A certificate that fits something to all images has one part.

    Args:
        x, y: (N, C, H, W) in [0, 1] and (N,); their places are the samples' numbers.
        seed: of the run; each sample draws from a stream of its own, whatever its part.
        part: images in a part.
        progress: called with (images done, images in all), first with what the ledger already held.

    Raises:
        VerigradError: a certificate gives a radius that is negative or not finite.
        LedgerError: the ledger cannot be written.
    """
    spec = catalog.describe(certificate)
    known = ledger.notes(NOTE)
    size = len(x) if certificate.fits_data else part
    parts = torch.arange(len(x)).split(size)
    names = [f"{spec}#{rows[0]}-{rows[-1]}" for rows in parts]
    done = sum(len(rows) for rows, name in zip(parts, names, strict=True) if name in known)
    if progress is not None:
        progress(done, len(x))
    for rows, name in zip(parts, names, strict=True):
        if name in known:
            continue
        device = device_of(model)
        generator = seeded(seed, f"certify/{spec}", rows.tolist(), device=device)
        found = certificate(model, x[rows].to(device), y[rows].to(device), generator=generator)
        _check(spec, found)
        ledger.put_note(NOTE, name, _noted(spec, certificate, rows, found))
        done += len(rows)
        if progress is not None:
            progress(done, len(x))


def _check(spec: str, found: Certified) -> None:
    bad = ~torch.isfinite(found.radius) | (found.radius < 0)
    if bad.any():
        raise VerigradError(
            f"The certificate {spec} gave the radius {float(found.radius[bad][0])}, which is no distance. "
            "This is a fault of verigrad or of the model; verigrad inspect says more of the model."
        )


def _noted(spec: str, certificate: Certificate, rows: Tensor, found: Certified) -> dict[str, Any]:
    return {
        "certificate": spec,
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
