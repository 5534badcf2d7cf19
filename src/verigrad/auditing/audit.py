"""Says whether a claimed robust accuracy holds: the call that `verigrad audit` makes."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.auditing.claim import Budget, Claim
from verigrad.auditing.course import Course, Progress
from verigrad.auditing.foreign import recognise
from verigrad.auditing.identity import Names, identify
from verigrad.core.classifier import device_of, left_as_found
from verigrad.core.errors import BadInput, VerigradError
from verigrad.core.seeds import derive_seed, seeded
from verigrad.core.threat import Threat
from verigrad.data.images import Images
from verigrad.evaluation.look import fixed_draws
from verigrad.evaluation.run import Subject
from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger
from verigrad.models.inspecting import check_classifier
from verigrad.reports.write import write_reports


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found. `summary` is what `audit.json` holds; the ledger lies in `out` where one was named."""

    summary: dict[str, Any]
    out: Path | None = None

    @property
    def verdict(self) -> str:
        """`upheld`, `overstated`, `obfuscated` or `undecided`."""
        return str(self.summary["verdict"])

    @property
    def found(self) -> float:
        """The robust accuracy that is left after every attack, as a fraction of all samples."""
        return float(self.summary["found"])


def audit(
    model: nn.Module,
    data: Images | tuple[Tensor, Tensor],
    threat: Threat,
    *,
    claim: Claim | None = None,
    budget: Budget | None = None,
    batch: int = 100,
    seed: int = 0,
    executor: Executor | None = None,
    out: str | Path | None = None,
    names: Names | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Says whether a claimed robust accuracy holds.

    Args:
        model: a classifier from (B, C, H, W) in [0, 1] to logits (B, K), in eval mode.
        data: images with labels, or a pair x (N, C, H, W) in [0, 1], y (N,) of class numbers.
        threat: what the attacker may do.
        claim: the attack behind the claim and the stated accuracy; by default PGD-20 and what it measures here.
        batch: samples judged together, as the claim was; it matters where predictions depend on batch-mates.
        executor: where units of work run; None runs them in this process.
        out: folder for ledger, reports and witnesses; an audit that was cut off goes on there. None keeps nothing.
        progress: called with one line for each step.

    Raises:
        BadInput: if model or data cannot be used; the message names value, expectation and fix.
        LedgerMismatch: if `out` holds another audit; the message names the difference.
    """
    images = data if isinstance(data, Images) else Images.of(*data)
    claim, budget, names = claim or Claim(), budget or Budget(), names or Names()
    # Whatever is wrong is told before there is a ledger.
    Subject(model=model, x=images.x, y=images.y, threat=threat, batch=batch, seed=seed)
    _check_model(model, images, batch, seed)
    tell, foreign = progress or (lambda _: None), recognise(model, images.x[:2], seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(out) if out is not None else Path(scratch)
        if not (folder / "ledger.sqlite").exists():
            _check_attack(claim.attack, model, images, threat, seed)
        identity = identify(
            model, images, threat, claim=claim, budget=budget, batch=batch, seed=seed, names=names, foreign=foreign
        )
        with Ledger.create_or_resume(folder / "ledger.sqlite", identity) as ledger:
            title = names.title
            course = Course(model, images, threat, claim, budget, batch, seed, executor, ledger, tell, title, foreign)
            with _faults_told():
                summary = course.whole()
        if out is not None:
            write_reports(folder)
    return Audit(summary=summary, out=Path(out) if out is not None else None)


@contextmanager
def _faults_told() -> Iterator[None]:
    """What a model raises under attack is its owner's to mend, and is told in one line."""
    try:
        yield
    except (VerigradError, LedgerError):
        raise
    except (Exception, SystemExit) as fault:  # an exit code of the model's would be taken for a verdict's
        why = str(fault).strip().partition("\n")[0]
        raise BadInput(
            f"The model failed while it was audited: {type(fault).__name__}: {why}. It must take any images in its "
            "range, as float32; the same command goes on once it does."
        ) from fault


def _check_model(model: nn.Module, images: Images, batch: int, seed: int) -> None:
    with fixed_draws(derive_seed("check", seed), device_of(model)):
        check_classifier(model, images.x, images.y, batch=batch)
    try:
        copy.deepcopy(model)
    except Exception as fault:
        why = str(fault).strip().partition("\n")[0]
        raise BadInput(
            f"The model cannot be copied: {type(fault).__name__}: {why}. Twins are copies of it: keep no generator, "
            "file or computed tensor as an attribute."
        ) from fault


def _check_attack(attack: Attack, model: nn.Module, images: Images, threat: Threat, seed: int) -> None:
    """The claim's attack on one image, so that one which does not fit model or threat is told before it is begun."""
    device = device_of(model)
    x, y = images.x[:1].clone().to(device), images.y[:1].to(device)
    with _faults_told(), left_as_found(model), fixed_draws(derive_seed("check", seed), device):
        attack(model, x, y, threat, generator=seeded(seed, "check", (0,), device))
