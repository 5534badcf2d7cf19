"""`verigrad attack --eps-curve`: one threat after another of one norm, each with a ledger of its own.

A sample that an attack breaks at some eps is broken at every larger one, so a budget attack goes up the ladder on what
it has left. A minimal attack looks for the nearest error whatever the eps: one run at the largest tells all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import typer

from verigrad.cli.ladder import Rung, check_reach
from verigrad.cli.parts import is_minimal
from verigrad.cli.progress import Advance, follow, progress
from verigrad.core.errors import BadInput
from verigrad.evaluation.clean import record_clean
from verigrad.evaluation.run import Attempt, attempt
from verigrad.evaluation.subject import Subject
from verigrad.ledger.store import Ledger
from verigrad.reports.curve import LADDER, NOTE, folder_of
from verigrad.reports.curve_gathering import gather_curve, level_folders


def draw_curve(
    subject: Subject, identity: Mapping[str, Any], tools: Mapping[str, Any], ladder: Sequence[Rung], out: Path | None
) -> None:
    """Climbs the ladder with every attack, prints the table and, where there is a folder to keep it, draws the page.

    Args:
        identity: of the run; each level's ledger has its own threat in it, and the whole ladder.
        tools: attacks by what the user wrote.
    """
    from rich.console import Console

    from verigrad.reports.curve_page import write_curve
    from verigrad.reports.curve_table import curve_table

    check_reach(ladder, subject.x.shape[1:])
    _check_folder(ladder, out)
    written = {LADDER: ",".join(rung.label for rung in ladder)}
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as folder:
        with ExitStack() as stack:
            levels = [
                Level(
                    replace(subject, threat=rung.threat),
                    stack.enter_context(
                        Ledger.create_or_resume(
                            Path(folder) / folder_of(rung.label) / "ledger.sqlite",
                            {**identity, **written, "threat": str(rung.threat)},
                        )
                    ),
                )
                for rung in ladder
            ]
            _climb_all(levels, tools)
        found = gather_curve(folder)
        page = None if out is None else write_curve(found, folder).page
    Console().print(curve_table(found))
    if page is not None:
        typer.echo(f"curve: {page}")


class Level(NamedTuple):
    """The subject under one threat, and the ledger of that threat."""

    subject: Subject
    ledger: Ledger


def _climb_all(levels: Sequence[Level], tools: Mapping[str, Any]) -> None:
    clean = [record_clean(*level) for level in levels]
    correct = [row.sample for row in clean[0] if row.prediction == row.label]
    runs = sum(1 if _once(tool, levels) else len(levels) for tool in tools.values())
    with progress("attack", runs * len(correct)) as advance:
        for label, tool in tools.items():
            _climb(levels, label, tool, correct, advance)


def _once(tool: Any, levels: Sequence[Level]) -> bool:
    """Whether a run at the last level tells all. Where predictions depend on batch-mates it does not: a witness stands
    in its joint batch, whose other images may be further away than it is."""
    return is_minimal(tool) and not levels[0].subject.coupled


def _climb(levels: Sequence[Level], label: str, tool: Any, correct: Sequence[int], advance: Advance) -> None:
    from verigrad import catalog

    once = _once(tool, levels)
    spec = catalog.describe(tool)
    left = list(correct)
    for level in levels[-1:] if once else levels:
        name = spec.partition(":")[0]
        told = follow(advance, note=f"{name} at {level.subject.threat}")
        advance(len(correct) - len(left))
        broken = _attempt(level, name, tool, left, told).broken
        # What is noted here was seen to its end; a curve leaves out what was cut off.
        level.ledger.put_note(
            NOTE, label, {"attack": spec, "kind": "minimal" if is_minimal(tool) else "budget", "once": once}
        )
        left = [sample for sample in left if sample not in broken]


def _attempt(level: Level, name: str, tool: Any, samples: Sequence[int], told: Callable[[int, int], None]) -> Attempt:
    subject, ledger = level
    return attempt(subject, ledger, stage="claim", name=name, attack=tool, samples=samples, progress=told)


def _check_folder(ladder: Sequence[Rung], out: Path | None) -> None:
    if out is None:
        return
    if (out / "ledger.sqlite").exists():
        raise BadInput(f"The folder {str(out)!r} holds a run of one threat. Give --out a folder of its own.")
    wanted = {folder_of(rung.label) for rung in ladder}
    if strange := [name for name in level_folders(out) if name not in wanted]:
        raise BadInput(
            f"The folder {str(out)!r} holds a curve with another --eps-curve, of which {strange[0]} is a level. Give "
            "the same one, or --out another folder."
        )


def refuse_curve(out: Path | None) -> None:
    """Refuses a folder that holds a curve, for a run of one threat.

    Raises:
        BadInput: it does.
    """
    if out is not None and level_folders(out):
        raise BadInput(f"The folder {str(out)!r} holds a curve. Give --eps-curve as well, or --out another folder.")
