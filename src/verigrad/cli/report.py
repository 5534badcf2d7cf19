"""`verigrad report`: draws the reports of a finished audit again, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(out: Annotated[Path, typer.Argument(help="The folder of an audit.", metavar="DIR")]) -> None:
    """Draw the reports of an audit again."""
    from rich.console import Console

    from verigrad.ledger.store import Ledger
    from verigrad.reports.summary import summary_of
    from verigrad.reports.terminal import report as drawn
    from verigrad.reports.write import write_reports

    written = write_reports(out)
    with Ledger.read(out / "ledger.sqlite") as ledger:
        summary = summary_of(ledger)
    console = Console()
    console.print(drawn(summary))
    console.print(f"report: {written.page}", soft_wrap=True, markup=False, highlight=False)
