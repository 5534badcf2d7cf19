"""`verigrad data`: fetches data sets, and lists those that it knows. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Fetch data sets.", invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def _face(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="mnist, cifar10 or cifar100.")],
    out: Annotated[Path | None, typer.Option(help="The folder for its files; data/NAME by default.")] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="Address to try first, under which the published files lie; may be given again."),
    ] = None,
) -> None:
    """Fetch a data set: mirrors in turn, hashes checked, all files or none."""
    from verigrad.cli.progress import progress
    from verigrad.data import download
    from verigrad.data.sources import find_source

    source = find_source(name)
    total = sum(file.size for file in source.files)
    with progress(f"fetch {name}, MB", round(total / 1e6)) as advance:
        shown = 0
        there: dict[str, int] = {}

        def told(file: str, done: int, size: int) -> None:
            nonlocal shown
            del size
            there[file] = done
            now = int(sum(there.values()) / 1e6)
            advance(now - shown, file)
            shown = now

        fetched = download.fetch(name, out or Path("data") / name, mirrors=mirror or (), told=told)
    typer.echo(f"{'fetched' if fetched.fresh else 'already there'}: --data {fetched.ref}")


@app.command("list")
def listing() -> None:
    """List the data sets that can be named, with their files, hashes and mirrors."""
    from verigrad.data.sources import SOURCES

    typer.echo("digits: handwritten digits, 8×8, 1,297 + 500 (Alpaydin & Kaynak 1998). Come with scikit-learn.")
    for source in SOURCES:
        typer.echo(f"{source.name}: {source.summary}. {sum(file.size for file in source.files) / 1e6:.0f} MB.")
        for file in source.files:
            typer.echo(f"  {file.name}  {file.size} bytes  SHA-256 {file.sha256}")
        for mirror in source.mirrors:
            typer.echo(f"  {mirror}")
