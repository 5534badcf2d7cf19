"""`verigrad reproduce`: the tables and figures of the papers, one command each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from verigrad.papers.recipe import Recipe

BAD_INPUT = 2
NOT_RUN, UNREADABLE = "not run", "unreadable"


def reproduce(
    name: Annotated[
        str,
        typer.Argument(help="PAPER/TABLE; list shows all with cost and state, all runs what is missing.", metavar="ID"),
    ],
    scale: Annotated[
        str,
        typer.Option(help="smoke (seconds), cpu (minutes on two cores), gpu (one large GPU), paper (its own)."),
    ] = "cpu",
    data: Annotated[Path, typer.Option(help="Folder with cifar10/ and mnist/, for what needs them.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder for nets, ledgers and results; a second run goes on there.")] = Path(
        "runs/papers"
    ),
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so long, with all that was done kept; the same command goes on.")
    ] = None,
) -> None:
    """Redo a table of a paper and print its numbers beside ours.

    OUT holds trained nets and finished attacks by what they are, so that tables share them, and a run that was killed
    goes on where it stopped.
    """
    from rich.console import Console

    from verigrad.core.errors import BadInput
    from verigrad.papers import reproduce as papers

    if minutes is not None and not minutes > 0:
        raise BadInput(f"--minutes must be a number above 0, such as 24. Got {minutes:g}.")
    papers.check_scale(scale)
    if name == "list":
        Console().print(_listed(papers.RECIPES, scale, out))
        return
    until = None if minutes is None else time.monotonic() + 60 * minutes
    if name == "all":
        _all(scale, data, out, until)
    else:
        _one(papers.find(name), scale, data, out, until)


def _all(scale: str, data: Path, out: Path, until: float | None) -> None:
    """Every id without readable results, one after the other; what cannot be run is told and does not stop the rest."""
    from verigrad.core.errors import BadInput
    from verigrad.papers import reproduce as papers

    states = [(one, _state(papers.results_file(out, one, scale))) for one in papers.RECIPES]
    missing = [one for one, state in states if state in (NOT_RUN, UNREADABLE)]
    refused = 0
    for recipe in missing:
        try:
            if not _one(recipe, scale, data, out, until):
                return
        except BadInput as fault:
            refused += 1
            typer.echo(f"error: {recipe.id}: {fault}", err=True)
    typer.echo(f"{len(papers.RECIPES) - refused} of {len(papers.RECIPES)} have results at the scale {scale}.")
    if refused:
        raise typer.Exit(BAD_INPUT)


def _one(recipe: Recipe, scale: str, data: Path, out: Path, until: float | None) -> bool:
    """Runs one recipe and prints it; false if the time limit came first."""
    from rich.console import Console

    from verigrad.cli.progress import lanes
    from verigrad.papers import reproduce as papers
    from verigrad.papers.workshop import OutOfTime

    with lanes([recipe.id]) as show:
        note = ""

        def tell(what: str) -> None:
            nonlocal note
            note = what
            show(recipe.id, note, None)

        def moved(done: int, total: int) -> None:
            share = done / total if total else None
            show(recipe.id, f"{note}, {done} of {total}", share)

        limit = None if until is None else max(0.0, until - time.monotonic())
        try:
            told = papers.reproduce(
                recipe, scale, out, papers.Watching(tell=tell, moved=moved), data=data, time_limit=limit
            )
        except OutOfTime:
            told = None
    if told is None:
        typer.echo(f"{recipe.id}: stopped at the time limit. The same command goes on from there.")
        return False
    Console().print(_table(told))
    typer.echo(f"results: {papers.results_file(out, recipe, scale)}")
    return True


def _listed(recipes: tuple[Recipe, ...], scale: str, out: Path) -> Any:
    from rich.table import Table

    from verigrad.papers.reproduce import results_file

    table = Table(box=None, pad_edge=False)
    for column in ("id", scale):
        table.add_column(column, no_wrap=True)
    needed = any(scale in recipe.needs for recipe in recipes)
    for column in ("cost", *(["needs"] if needed else []), "what it shows"):
        table.add_column(column)
    for recipe in recipes:
        state = _state(results_file(out, recipe, scale))
        needs = [recipe.needs.get(scale, "")] if needed else []
        table.add_row(recipe.id, state, recipe.cost.get(scale, ""), *needs, recipe.title)
    return table


def _state(file: Path) -> str:
    if not file.exists():
        return NOT_RUN
    try:
        seconds = float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (ValueError, TypeError, KeyError):
        return UNREADABLE
    return f"done, {seconds:.0f} s" if seconds < 120 else f"done, {seconds / 60:.0f} min"


def _table(told: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("row", "column"):
        table.add_column(column)
    for column in ("paper", "ours", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("status")
    for cell in told["cells"]:
        ours = cell["ours"]
        measured = ours if isinstance(ours, dict) else {"value": ours, "low": None}
        ends = "" if measured["low"] is None else f"{measured['low']:.1f} to {measured['high']:.1f}"
        status = "" if cell["printed"] is None else cell["status"]
        row = ", ".join(word for word in cell["row"] if word)
        table.add_row(row, cell["column"], _number(cell["printed"]), _number(measured["value"]), ends, status)
    return Group(table, *map(Text, _findings(told)))


def _findings(told: dict[str, Any]) -> list[str]:
    reasons = [f" Reason: {one['reason']}." if one["reason"] else "" for one in told["findings"]]
    claims = [f"{one['status']}: {one['claim']} ({one['evidence']})." for one in told["findings"]]
    return [claim + reason for claim, reason in zip(claims, reasons, strict=True)]


def _number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(f"{one:.3f}" for one in value)
    return "" if value is None else f"{value:.4g}"
