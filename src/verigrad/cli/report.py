"""`verigrad report`: draws what is in a folder again, without torch: an audit, a curve or certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verigrad.cli.certify import show_certificates
from verigrad.ledger.store import Ledger


def report(
    out: Annotated[Path, typer.Argument(help="The folder of an audit, or of an attack.", metavar="DIR")],
) -> None:
    """Draw the reports of an audit again, the curve of an attack, or certificates."""
    from verigrad.reports.curve_gathering import level_folders

    if not (out / "ledger.sqlite").exists() and level_folders(out):
        _curve(out)
        return
    with Ledger.read(out / "ledger.sqlite") as ledger:
        command = ledger.identity.get("command")
        if command == "attack":
            _attack(out, ledger)
    if command == "certify":
        show_certificates(out)
    elif command != "attack":
        _audit(out)


def _audit(out: Path) -> None:
    from rich.console import Console

    from verigrad.reports.summary import summary_of
    from verigrad.reports.terminal import report as drawn
    from verigrad.reports.write import write_reports

    written = write_reports(out)
    with Ledger.read(out / "ledger.sqlite") as ledger:
        summary = summary_of(ledger)
    Console().print(drawn(summary))
    _say(f"report: {written.page}")


def _curve(out: Path) -> None:
    from rich.console import Console

    from verigrad.reports.curve_gathering import gather_curve
    from verigrad.reports.curve_page import write_curve
    from verigrad.reports.curve_table import curve_table

    found = gather_curve(out)
    written = write_curve(found, out)
    Console().print(curve_table(found))
    _say(f"curve: {written.page}")


def _attack(out: Path, ledger: Ledger) -> None:
    """A run of `verigrad attack` has no page: what its ledger holds is said."""
    identity, samples, units = ledger.identity, ledger.samples(), ledger.units()
    right = sum(row.prediction == row.label for row in samples)
    _say(f"{out} holds an attack and no audit: {identity['model']} on {identity['data']}, {identity['threat']}.")
    _say(f"{len(samples)} samples, {right} of them right without an attack.")
    broken: set[int] = set()
    for spec in dict.fromkeys(unit.attack for unit in units):
        results = [result for unit in units if unit.attack == spec for result in ledger.results(unit.key)]
        mine = {result.sample for result in results if result.broken}
        broken |= mine
        _say(f"{spec}: tried {len(results)}, broke {len(mine)}.")
    if units:
        _say(f"All together broke {len(broken)}.")
    _say("The same verigrad attack prints its table again, verigrad verify replays what it found.")


def _say(line: str) -> None:
    typer.echo(line)
