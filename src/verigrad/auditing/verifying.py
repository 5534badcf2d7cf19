"""Whether what an audit left behind still holds: receipts, summary, and every image shown to the model again."""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from verigrad import catalog
from verigrad.auditing.claim import Budget, Claim
from verigrad.auditing.course import Course
from verigrad.auditing.foreign import recognise
from verigrad.auditing.health import CHECKS, depends_on_batch
from verigrad.auditing.patient import Check
from verigrad.core.errors import BadInput
from verigrad.core.threat import parse_threat
from verigrad.data.images import Images, data_hash
from verigrad.data.load import load_data
from verigrad.evaluation.clean import record_clean
from verigrad.evaluation.replay import Fallen, replay
from verigrad.evaluation.subject import Subject
from verigrad.evaluation.work import Job
from verigrad.ledger.errors import EditedLedger
from verigrad.ledger.identity import canonical
from verigrad.ledger.store import Ledger
from verigrad.models.loading import load_model, weights_hash


class Verified(NamedTuple):
    """How many witnesses stand, which do not, and the ledger's seal.

    Whoever knows how receipts are made can make a ledger that agrees with itself; it has another seal.
    """

    stood: int
    fallen: tuple[Fallen, ...]
    seal: str


def verify(
    folder: str | Path,
    *,
    seal: str | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Shows the model the clean images and the witnesses of FOLDER/ledger.sqlite again, by forward passes alone.

    Args:
        folder: what an audit or an attack was told as `out`.
        seal: the seal as it was published, 64 hexadecimal digits; None compares it with nothing.
        device: where the model is put. An image on the very edge may be decided otherwise on another kind of device.
        progress: called with (units done, units in all).

    Raises:
        LedgerError: there is no ledger. EditedLedger: it, or audit.json, does not agree with itself or with `seal`,
            the summary is not what the recorded attacks and health come to by the rules of the verdict, or a clean
            prediction is not what the model says.
        BadInput: the ledger names no model or data, they cannot be loaded, or they are not those of the audit.
    """
    folder = Path(folder)
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        ledger.check(seal)
        _same_summary(folder / "audit.json", ledger)
        named = _named(ledger, folder)
        images, model = _loaded(named)
        model.to(device)
        _same("weights", named["model"], named.get("weights_sha256"), weights_hash(model))
        _same("images and labels", named["data"], named.get("data_sha256"), data_hash(images))
        found = replay(
            model,
            images.x,
            images.y,
            parse_threat(named["threat"]),
            ledger,
            batch=named["batch"],
            progress=progress,
        )
        if not found.fallen:  # a model that decides otherwise is told by its witnesses
            _same_predictions(ledger, model, images)
            _same_conclusion(ledger, model, images)
        return Verified(found.stood, found.fallen, ledger.seal())


def _loaded(named: dict[str, Any]) -> tuple[Images, nn.Module]:
    try:
        images = load_data(named["data"], n=named["n"])
        return images, load_model(named["model"], weights=named["weights"] or None)
    except BadInput as fault:
        raise BadInput(
            f"{fault} Relative names start in the working directory, which is {str(Path.cwd())!r}: run this in the "
            "folder in which the ledger was made, or set PYTHONPATH for a model's module."
        ) from fault


def _same_summary(path: Path, ledger: Ledger) -> None:
    """The summary must be what the witnesses say, and audit.json, where there is one, what the summary says."""
    summary = ledger.summary()
    if summary is not None:
        right = sum(row.prediction == row.label for row in ledger.samples())
        found = right - len({witness.sample for witness in ledger.witnesses()})
        if round(summary["found"] * summary["n"]) != found or summary["seal"] != ledger.seal():
            raise EditedLedger(f"The summary in {str(ledger.path)!r} is not what its samples and witnesses say.")
    if path.exists():
        try:
            drawn = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            drawn = path
        if drawn != summary:
            raise EditedLedger(f"{str(path)!r} is not what the ledger says. verigrad report draws it again.")


def _same_predictions(ledger: Ledger, model: nn.Module, images: Images) -> None:
    """The clean images must be the data's, all of them, and the model must say of each what the ledger says.

    They are shown in the batches in which they were recorded, since predictions may depend on batch-mates.
    """
    told = ledger.samples()
    if not told:  # a run that was cut off before it looked at them
        return
    identity = ledger.identity
    checks = [Check(**check) for check in ledger.notes("health").values()]
    subject = Subject(
        model=model,
        x=images.x,
        y=images.y,
        threat=parse_threat(identity["threat"]),
        batch=identity["batch"],
        coupled=depends_on_batch(model, checks),
    )
    with tempfile.TemporaryDirectory() as scratch, Ledger.create_or_resume(Path(scratch) / "clean.sqlite", {}) as fresh:
        found = record_clean(subject, fresh)
    if [row.sample for row in told] != [row.sample for row in found]:
        raise EditedLedger(f"The ledger {ledger.path} has {len(told)} clean samples, the data {len(found)}.")
    for was, now in zip(told, found, strict=True):
        if not np.array_equal(ledger.image(was.sample), images.x[was.sample].numpy()):
            raise EditedLedger(f"The clean image of sample {was.sample} in {str(ledger.path)!r} is not the data's.")
        if was[:3] != now[:3]:
            raise EditedLedger(
                f"The clean sample {was.sample} has label {was.label} and prediction {was.prediction} in "
                f"{str(ledger.path)!r}, but label {now.label} in the data and prediction {now.prediction} by the model."
            )


def _same_conclusion(ledger: Ledger, model: nn.Module, images: Images) -> None:
    """The summary must be what the recorded attacks and health come to by the rules: receipts alone can be forged."""
    summary = ledger.summary()
    if summary is None:
        return
    again = _concluded(ledger, model, images, title=str(summary["title"]))
    differing = [key for key in sorted(summary.keys() | again.keys()) if not _alike(summary.get(key), again.get(key))]
    if differing:
        raise EditedLedger(
            f"The summary in {str(ledger.path)!r} is not what its rows come to: {', '.join(differing)} differ. "
            "Run the same audit again, which draws it anew."
        )


def _alike(a: Any, b: Any) -> bool:
    """Equal, but for the last digits of a number: intervals come from scipy, whose versions differ in them."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b


def _named(ledger: Ledger, folder: Path) -> dict[str, Any]:
    named = ledger.identity
    missing = [key for key in ("model", "data", "n", "threat", "batch") if not named.get(key)]
    if missing:
        raise BadInput(
            f"The ledger in {str(folder)!r} names no {' and no '.join(missing)}: it was made from Python objects. "
            "Call verigrad.evaluation.replay.replay with them."
        )
    return {"weights": "", **named}


def _same(what: str, where: str, told: str | None, found: str) -> None:
    if told is not None and told != found:
        raise BadInput(
            f"The {what} of {where!r} are not those of the audit: their SHA-256 begins {found[:12]}, not {told[:12]}."
        )


def _concluded(ledger: Ledger, model: nn.Module, images: Images, *, title: str) -> dict[str, Any]:
    """The summary that the rows of a finished ledger come to, drawn again on a copy. Nothing is attacked.

    Raises:
        EditedLedger: a unit, or a health check, of the audit that the identity names is not there.
    """
    identity = ledger.identity
    missing = [check.__name__ for check in CHECKS if check.__name__ not in ledger.notes("health")]
    if missing:
        raise EditedLedger(f"The ledger {ledger.path} has a summary, but no {missing[0]} among its health checks.")
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(scratch) / "ledger.sqlite"
        original = f"{ledger.path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(original, uri=True)) as source, closing(sqlite3.connect(copied)) as target:
            source.backup(target)
        with Ledger.create_or_resume(copied, identity) as again:
            run = Course(
                model,
                images,
                parse_threat(identity["threat"]),
                Claim(
                    attack=catalog.build("attack", identity["claim_attack"]),
                    accuracy=identity["claim_accuracy"],
                ),
                Budget(**identity["budget"]),
                identity["batch"],
                identity["seed"],
                _Unwilling(str(ledger.path)),
                again,
                lambda _: None,
                title,
                recognise(model, images.x[:2], seed=identity["seed"]),
            )
            return json.loads(canonical(run.whole()))


class _Unwilling(Executor):
    """Runs nothing: what is asked of it should be in the ledger."""

    def __init__(self, path: str) -> None:
        self.path = path

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        unit = next((arg.unit.key for arg in args if isinstance(arg, Job)), "a unit")
        raise EditedLedger(f"The ledger {self.path} has a summary, but not the unit {unit}, which it rests on.")
