"""`verigrad inspect`: what is true of a model and its images, before anything is attacked."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verigrad.cli.device import Device, judging_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from verigrad.models.fact import Fact

# What some fact keeps from being audited.
UNFIT = 1


def inspect(
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
    weights: Annotated[str | None, typer.Option(help="Weights for the model: .safetensors or .pt.")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="MEAN/STD that the model wants its input normalised by: 0.5/0.25, or by channel.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Samples shown together.", min=1)] = 100,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Tell what is true of a model on some images. Exits 1 if it cannot be audited."""
    from verigrad.auditing.foreign import recognise
    from verigrad.data.load import load_data
    from verigrad.models.facts import facts
    from verigrad.models.loading import describe_model, load_model, weights_hash
    from verigrad.models.normalised import normalising
    from verigrad.solvers.torchdiffeqs import torchdiffeqs

    where = judging_device(device)
    named = model if normalise is None else normalising(model, normalise)
    images = load_data(data, n=n)
    with redirect_stdout(sys.stderr):  # what a model of theirs prints is no part of the table
        classifier = load_model(named, weights=weights)
        classifier.to(where)
        found = facts(classifier, images.x, images.y, batch=batch)
        unfit = any(fact.fatal for fact in found)
        # The same images as an audit looks at.
        calls = recognise(classifier, images.x[:2], seed=0).texts() if torchdiffeqs() and not unfit else []
    about = {"model": named, "weights_sha256": weights_hash(classifier), **describe_model(classifier)}
    about |= {"torchdiffeq": calls}
    if as_json:
        typer.echo(json.dumps({**about, "data": data, "n": len(images), "facts": list(map(asdict, found))}, indent=1))
    else:
        _show(about, found)
    if unfit:
        raise typer.Exit(UNFIT)


def _show(about: dict[str, Any], found: Iterable[Fact]) -> None:
    from rich.console import Console

    console = Console()
    words = f"{about['class']}, {about['parameters']} parameters, weights {about['weights_sha256'][:12]}"
    console.print(words, markup=False, highlight=False)
    for solver in about["solvers"]:
        how = ", ".join(solver[key] for key in ("method", "control", "gradient"))
        line = f"{solver['block']}: {how}, over [{solver['t0']:g}, {solver['t1']:g}]"
        console.print(line, markup=False, highlight=False)
    for call in about["torchdiffeq"]:
        console.print(call, markup=False, highlight=False)
    console.print(_table(found))


def _table(found: Iterable[Fact]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("fact", "holds", "value"):
        table.add_column(name, no_wrap=name != "value", overflow="fold")
    table.add_column("", overflow="fold")
    for fact in found:
        style = "bold red" if fact.fatal else {True: "green", False: "yellow", None: "dim"}[fact.holds]
        holds = {True: "yes", False: "no", None: "not told"}[fact.holds]
        table.add_row(fact.name, Text(holds, style), Text(_written(fact.value)), Text(fact.detail))
    return table


def _written(value: float | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
