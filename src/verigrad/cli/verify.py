"""`verigrad verify`: the images of a ledger, shown to the model again by forward passes alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verigrad.cli.device import Device, judging_device
from verigrad.core.errors import BadInput

if TYPE_CHECKING:
    import torch

NOT_PROVEN = 1
# How many fallen witnesses are named.
SHOWN = 10


def command(
    out: Annotated[Path, typer.Argument(help="The folder of an audit or of an attack.", metavar="DIR")],
    seal: Annotated[str | None, typer.Option(help="The seal as it was published: only it proves the origin.")] = None,
    device: Device = "auto",
) -> None:
    """Replay the witnesses of an audit.

    By forward passes alone, on the model and the data named in the ledger; relative paths start here. The folder of a
    curve is replayed level by level. Exits 1 if a witness no longer stands, the ledger does not agree with itself, or
    it has another seal.
    """
    from verigrad.reports.curve_gathering import level_folders

    if seal is not None and not re.fullmatch(r"[0-9a-f]{64}", seal := seal.strip().lower()):
        raise BadInput(f"The --seal must be 64 hexadecimal digits, as verigrad audit prints them. Got {seal!r}.")
    where = judging_device(device)
    levels = [] if (out / "ledger.sqlite").exists() else level_folders(out)
    if seal is not None and levels:
        raise BadInput(f"Each level of a curve has a seal of its own. Give one of {', '.join(levels)} in {str(out)!r}.")
    for level in levels:
        typer.echo(f"{level}: ", nl=False)
        _replay(out / level, None, where)
    if not levels:
        _replay(out, seal, where)


def _replay(out: Path, seal: str | None, where: torch.device) -> None:
    from verigrad.auditing.verifying import verify
    from verigrad.ledger.errors import EditedLedger

    try:
        with _progress() as told:
            found = verify(out, seal=seal, device=where, progress=told)
    except EditedLedger as error:
        typer.echo(f"not proven: {error}", err=True)
        raise typer.Exit(NOT_PROVEN) from None
    for fallen in found.fallen[:SHOWN]:
        typer.echo(
            f"not proven: the witness of sample {fallen.sample} in unit {fallen.unit} {fallen.reason}.", err=True
        )
    if found.fallen:
        count = found.stood + len(found.fallen)
        typer.echo(f"not proven: {len(found.fallen)} of {count} witnesses do not stand.", err=True)
        raise typer.Exit(NOT_PROVEN)
    stand = f"all {found.stood} witnesses stand"
    if seal is None:
        agrees = f"and the ledger agrees with itself (seal {found.seal})."
        typer.echo(f"{stand}, {agrees} Compare the seal with the published one.")
    else:
        typer.echo(f"{stand}, the ledger agrees with itself, and its seal is the one given.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Progress that begins with the first unit: only then it is known how many there are."""
    from verigrad.cli.progress import follow, progress

    with ExitStack() as stack:
        known: list[Callable[[int, int], None]] = []

        def told(done: int, total: int) -> None:
            if not known:
                known.append(follow(stack.enter_context(progress("verify", total)), note="units"))
            known[0](done, total)

        yield told
