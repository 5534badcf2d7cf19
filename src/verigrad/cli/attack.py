"""`verigrad attack`: what accuracy is left under some attacks, each alone and all together."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from verigrad.cli.device import Device, judging_device
from verigrad.core.errors import BadInput

if TYPE_CHECKING:
    from verigrad.evaluation.run import Attempt
    from verigrad.evaluation.subject import Subject
    from verigrad.ledger.store import Ledger


class Outcome(NamedTuple):
    """Numbers of the samples that are correct without an attack, and by its spec what each attack did to them."""

    n: int
    correct: tuple[int, ...]
    attempts: dict[str, Attempt]


def attack(
    model: Annotated[
        str,
        typer.Argument(
            help="package.module:factory, a checkpoint folder, timm:NAME.TAG, torchvision:NAME.TAG, hf:DIR."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="digits, mnist:DIR, cifar10:DIR, cifar100:DIR, imagenet:DIR, .npz with x and y, or a folder by class."
        ),
    ],
    threat: Annotated[str, typer.Option(help="linf:EPS, l2:EPS or l0:PIXELS; fractions such as linf:8/255 are fine.")],
    attacks: Annotated[
        list[str], typer.Option(help="NAME or NAME:key=value,...; several between blanks, or the option again.")
    ],
    weights: Annotated[str | None, typer.Option(help="Weights for the model: .safetensors or .pt.")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="MEAN/STD that the model wants its input normalised by: 0.5/0.25, or by channel.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Samples judged together.", min=1)] = 100,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    eps_curve: Annotated[
        str | None,
        typer.Option(
            help="EPS,EPS,... from small to large, in place of the threat's own eps: accuracy at each of them."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the ledger and its witnesses; the same command resumes it.")
    ] = None,
) -> None:
    """Attack a model and print the accuracy that is left."""
    from verigrad import catalog
    from verigrad.auditing.identity import Names, identify_run
    from verigrad.cli.curve import draw_curve, refuse_curve
    from verigrad.cli.ladder import parse_ladder
    from verigrad.cli.parts import check_norm
    from verigrad.core.threat import parse_threat
    from verigrad.data.load import load_data
    from verigrad.evaluation.subject import Subject
    from verigrad.ledger.store import Ledger
    from verigrad.models.loading import check_classifier, load_model
    from verigrad.models.normalised import normalising

    ball = parse_threat(threat)
    where = judging_device(device)
    named = model if normalise is None else normalising(model, normalise)
    tools = {spec: catalog.build("attack", spec) for text in attacks for spec in text.split()}
    if not tools:
        raise BadInput("--attacks names no attack. Write for example --attacks 'fgsm pgd:steps=20'.")
    check_norm(tools, str(ball).partition(":")[0])
    ladder = None if eps_curve is None else parse_ladder(eps_curve, ball)
    images = load_data(data, n=n)
    classifier = load_model(named, weights=weights)
    classifier.to(where)
    check_classifier(classifier, images.x, images.y)
    subject = Subject(model=classifier, x=images.x, y=images.y, threat=ball, batch=batch, seed=seed)
    names = Names(model=named, weights=weights or "", data=data)
    identity = identify_run("attack", subject, images, names)
    if ladder is not None:
        draw_curve(subject, identity, tools, ladder, out)
        return
    refuse_curve(out)
    place = tempfile.TemporaryDirectory() if out is None else nullcontext(str(out))
    with place as folder, Ledger.create_or_resume(Path(folder) / "ledger.sqlite", identity) as ledger:
        found = _run(subject, ledger, tools)
    _show(found)


def _run(subject: Subject, ledger: Ledger, tools: dict[str, Any]) -> Outcome:
    from verigrad import catalog
    from verigrad.cli.progress import follow, progress
    from verigrad.evaluation.clean import record_clean
    from verigrad.evaluation.run import attempt

    rows = record_clean(subject, ledger)
    correct = tuple(row.sample for row in rows if row.prediction == row.label)
    attempts: dict[str, Attempt] = {}
    with progress("attack", len(tools) * len(correct)) as advance:
        for spec, tool in tools.items():
            name = catalog.describe(tool).partition(":")[0]
            told = follow(advance, note=name)
            attempts[spec] = attempt(
                subject, ledger, stage="claim", name=name, attack=tool, samples=correct, progress=told
            )
    return Outcome(len(rows), correct, attempts)


def _show(found: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table

    from verigrad.ledger.statistics import clopper_pearson

    def accuracy(broken: int) -> tuple[str, str]:
        left = len(found.correct) - broken
        low, high = clopper_pearson(left, found.n)
        return f"{100 * left / found.n:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"

    table = Table(box=None, pad_edge=False)
    table.add_column("attack", overflow="fold")
    for name in ("accuracy", "95 % interval", "broken", "forwards", "backwards"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("none", *accuracy(0), "", "", "")
    for spec, done in found.attempts.items():
        counts = (str(len(done.broken)), str(done.forwards), str(done.backwards))
        table.add_row(spec, *accuracy(len(done.broken)), *counts)
    worst = frozenset[int]().union(*(done.broken for done in found.attempts.values()))
    table.add_row("worst case of all", *accuracy(len(worst)), str(len(worst)), "", "")
    Console().print(table)
    typer.echo(f"n = {found.n}")
