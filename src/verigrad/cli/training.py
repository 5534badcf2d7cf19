"""What `verigrad train` does with its options: the folder, the processes, and what the user is told."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from torch import nn

from verigrad import catalog
from verigrad.cli.device import chosen_device
from verigrad.cli.progress import PATIENCE, Advance, progress
from verigrad.core.errors import BadInput
from verigrad.core.threat import parse_threat
from verigrad.data.load import load_data
from verigrad.models.checkpoint import DESCRIPTION, WEIGHTS, build_model
from verigrad.models.loading import check_classifier, save_checkpoint
from verigrad.training.checkpoint import Epoch
from verigrad.training.distributed import joined
from verigrad.training.epochs import Report
from verigrad.training.metrics import Tracker, record
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import Progress, Trained, initialised
from verigrad.training.trainer import train as run_training
from verigrad.training.watching import Watch

STATE, BEST, METRICS, TENSORBOARD, DRAFT = "training.safetensors", "best", "metrics.jsonl", "tensorboard", ".finished"
# What a training that was cut short may have left in its folder, with drafts of it behind a dot.
OWN = (STATE, BEST, METRICS, TENSORBOARD, DRAFT.removeprefix("."), WEIGHTS)
# So many images are shown to a model before it is trained on all.
FEW = 10


@dataclass(frozen=True, kw_only=True)
class Job:
    """The options of the command; `watch` is a threat's spec, "none", or None for that of the method."""

    model: str
    data: str
    n: int | None
    out: Path
    method: Any
    recipe: Recipe
    watch: str | None
    device: str
    save_every: float
    time_limit: float | None
    track: bool


def run(job: Job) -> None:
    """Trains, or goes on with what OUT holds; in the processes of torchrun, if it has started any."""
    begun = time.monotonic()
    _check_folder(job.out)
    tracker = Tracker(job.out / TENSORBOARD) if job.track else None
    with joined() as processes:
        device = chosen_device(job.device, local=processes.local)
        images = load_data(job.data, "train", n=job.n)
        _, channels, *sides = images.x.shape
        size = sides[-1]
        if job.recipe.augment.crop >= min(sides):
            raise BadInput(
                f"--crop must be less than {min(sides)}, the side of the images. Got {job.recipe.augment.crop}."
            )
        spec = catalog.complete(job.model, in_channels=channels, classes=images.classes, size=size)
        model = initialised(lambda: build_model(spec), job.recipe.seed).eval()
        model.to(device)
        shown = [*range(min(FEW, len(images))), int(images.y.argmax())]  # the last for the number of classes
        check_classifier(model, images.x[shown], images.y[shown])
        limit = None if job.time_limit is None else max(1e-3, job.time_limit - (time.monotonic() - begun))
        console = Console(stderr=True, quiet=processes.rank > 0)
        count = len(images) - job.recipe.validation
        with progress("train", job.recipe.epochs * -(-count // job.recipe.batch), console=console) as advance:
            trained = run_training(
                model,
                images.x,
                images.y,
                job.method,
                job.recipe,
                progress=_told(advance, console),
                epoch_done=_reported(job, spec, tracker, console),
                checkpoint=job.out / STATE,
                save_every=job.save_every,
                time_limit=limit,
                watch=_watch(job),
                processes=processes,
            )
        if processes.rank == 0:
            _end(job, spec, model, trained, tracker)


def _check_folder(out: Path) -> None:
    """Refuses a folder that holds anything but a training that was cut short, be it while it put its model there."""
    if not out.exists():
        return
    names = [path.name for path in out.iterdir()] if out.is_dir() else [""]
    complete = DESCRIPTION in names and STATE not in names
    if complete or not all(name.lstrip(".").startswith((*OWN, DESCRIPTION)) for name in names):
        raise BadInput(f"{str(out)!r} is there already. Choose another folder for --out, or remove it.")


def _watch(job: Job) -> Watch | None:
    if job.watch is None:
        own = getattr(job.method, "objective", job.method)  # an algorithm may be made with an objective
        threat = getattr(own, "threat", None)
    else:
        threat = None if job.watch == "none" else parse_threat(job.watch)
    return Watch(threat=threat, seed=job.recipe.seed) if threat is not None else None


def _told(advance: Advance, console: Console) -> Callable[[Progress], None]:
    seen = first = 0
    begun = looked = time.monotonic()
    parts: dict[str, float] = {}

    def told(now: Progress) -> None:
        nonlocal seen, first, looked, parts
        first = first if seen else now.step - 1
        notes = [_written(now.epoch)] if now.epoch else []
        if time.monotonic() - looked >= PATIENCE / 2:  # not after every step: it waits for the device
            looked, parts = time.monotonic(), now.so_far()
        if parts:
            notes.insert(0, f"now {_listed(parts)}")
        if not console.is_terminal:  # a bar has a column for it
            left = (time.monotonic() - begun) / (now.step - first) * (now.steps - now.step)
            notes.append(f"about {_time(left)} left")
        advance(now.step - seen, note="; ".join(notes))
        seen = now.step

    return told


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _reported(job: Job, spec: str, tracker: Tracker | None, console: Console) -> Callable[[Report], None]:
    last = time.monotonic()

    def reported(report: Report) -> None:
        nonlocal last
        epoch, now = report.epoch, time.monotonic()
        lr = job.recipe.lr * job.recipe.schedule((epoch.number - 1) / job.recipe.epochs)
        facts = {"lr": lr, "seconds": now - last}
        last = now
        record(job.out / METRICS, epoch, **facts)
        if tracker is not None:
            tracker.record(epoch, **facts)
        if report.best:
            save_checkpoint(spec, report.model, job.out / BEST)
        if report.collapsed:
            console.print(
                f"warning: epoch {epoch.number}: accuracy under the quick attack fell to {epoch.robust:.4f}, by more "
                "than 0.2 since the epoch before: catastrophic overfitting. Train with a multi-step attack.",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    return reported


def _end(job: Job, spec: str, model: nn.Module, trained: Trained, tracker: Tracker | None) -> None:
    if tracker is not None:
        tracker.close()
    if trained.stopped:
        typer.echo(f"stopped at the time limit after step {trained.steps}. The same command goes on from there.")
        return
    _keep(spec, model, job.out)
    typer.echo(_written(trained.history[-1]))
    typer.echo(f"model: {job.out}")
    if trained.best_epoch is not None:
        by = "" if trained.history[-1].robust is None else " under the quick attack"
        typer.echo(f"best on the samples held out{by}, epoch {trained.best_epoch}: {job.out / BEST}")


def _keep(spec: str, model: nn.Module, out: Path) -> None:
    """The model into OUT, its description after its weights. The state goes last: a folder without it is complete."""
    draft = out / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    save_checkpoint(spec, model, draft)
    os.replace(draft / WEIGHTS, out / WEIGHTS)
    os.replace(draft / DESCRIPTION, out / DESCRIPTION)
    for left in out.glob(".*"):  # the draft, and others by a run that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    (out / STATE).unlink()


def _written(epoch: Epoch) -> str:
    parts = [_listed(epoch.parts)] if epoch.parts else []
    if epoch.validation is not None:
        parts.append(f"validation accuracy {epoch.validation:.4f}")
    if epoch.robust is not None:
        whose = "" if epoch.validation is not None else ", on samples of the training,"
        parts.append(f"under a quick attack{whose} {epoch.robust:.4f}")
    return f"epoch {epoch.number}: {', '.join(parts)}"


def _listed(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
