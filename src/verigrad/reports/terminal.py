"""Audits on a terminal, as rich renderables: one table for several, and one audit in full.

Everything reads without colour and fits 80 columns. Nothing is printed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from verigrad.reports.numbers import MISSING, compact, count, interval, percent, quantity, seconds
from verigrad.reports.summary import Summary, claimed_text, gap_text, in_words, main_cause
from verigrad.reports.words import SEVERITIES, verdict

STYLES = {"upheld": "bold green", "overstated": "bold yellow", "obfuscated": "bold red", "undecided": "bold blue"}


class Framed:
    """A panel on a terminal, plain lines in a pipe or a file."""

    def __init__(self, content: Text, title: str) -> None:
        self.content = content
        self.title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield Panel(self.content, title=Text(self.title), title_align="left", padding=(0, 1))
        else:
            yield Text(self.title, style="bold")
            yield self.content


def comparison(summaries: Sequence[Summary]) -> Table:
    """One row for each audit: model, clean, claimed, found, 95 % interval, verdict, main cause."""
    table = _table()
    table.padding = (0, 1, 0, 0)  # two spaces between columns, so that seven of them fit into 80
    short = all(len(str(summary["title"])) <= 16 for summary in summaries)
    table.add_column("model", overflow="fold", min_width=8, no_wrap=short)
    for heading in ("clean", "claimed", "found", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("main cause", overflow="fold")
    for summary in summaries:
        n, word = summary["n"], str(summary["verdict"])
        table.add_row(
            Text(str(summary["title"])),
            percent(summary["clean"], n),
            claimed_text(summary),
            percent(summary["found"], n),
            interval(summary["interval"], n),
            Text(word, style=STYLES.get(word, "")),
            Text(main_cause(summary) or MISSING),
        )
    return table


def report(summary: Summary) -> Group:
    """One audit: verdict, causes, attacks, health."""
    parts: list[RenderableType] = [_verdict(summary)]
    if summary["causes"]:
        parts += [Text("\nCauses", style="bold"), _causes(summary)]
    else:
        parts.append(Text("\nCauses: none; no intervention broke a sample that survived the claim's attack."))
    parts += [Text("\nAttacks, in order", style="bold"), _attacks(summary)]
    parts += [Text("\nHealth", style="bold"), _health(summary)]
    return Group(*parts)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def _verdict(summary: Summary) -> Framed:
    n, word = summary["n"], str(summary["verdict"])
    text = Text()
    text.append(word.upper(), style=STYLES.get(word, ""))
    text.append(f"  claimed {claimed_text(summary)}, found {percent(summary['found'], n)}", style="bold")
    text.append(f" (95 % interval {interval(summary['interval'], n)}), gap {gap_text(summary)}\n")
    data = summary["data"]["ref"] or MISSING
    text.append(f"clean {percent(summary['clean'], n)}, n = {count(n)}, {summary['threat']}, data {data}")
    if summary["batch_coupled"]:
        text.append(f"\njudged in whole batches of {summary['batch']}")
        text.append(f"; counting only witnesses that stand alone: {percent(summary['found_alone'], n)}")
    for reason in summary["reasons"]:
        text.append(f"\n- {in_words(str(reason), summary)}")
    text.append(f"\n{verdict(word)}", style="italic")
    return Framed(text, str(summary["title"]))


def _causes(summary: Summary) -> Table:
    table = _table()
    table.add_column("cause", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("intervention", overflow="fold", min_width=14)  # no break within "noise-averaged" at 80 columns
    table.add_column("witnesses", justify="right", no_wrap=True)
    table.add_column("of\nsurvivors", justify="right", no_wrap=True)
    table.add_column("confirmed", no_wrap=True)
    for cause in summary["causes"]:
        table.add_row(
            Text(str(cause["label"])),
            Text(str(cause["kind"])),
            Text(str(cause["intervention"])),
            count(cause["witnesses"]),
            percent(cause["share"]),
            "yes" if cause["confirmed"] else "no",
        )
    return table


def _attacks(summary: Summary) -> Table:
    """A stage is a line of its own above its attacks: a column of it would leave their names no room at 80 columns."""
    table = _table()
    table.add_column("attack", overflow="fold")
    for heading in ("tried", "broke", "new", "left", "forwards", "backwards", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    stage = ""
    for attack in summary["attacks"]:
        name, before, stage = str(attack["name"]), stage, str(attack["stage"])
        if stage not in (before, name):
            table.add_row(Text(stage, style="bold"))
        table.add_row(
            Text(name) if stage == name else Padding(Text(name), (0, 0, 0, 2)),
            count(attack["attempted"]),
            count(attack["broken"]),
            count(attack["added"]),
            percent(attack["remaining"], summary["n"]),
            compact(attack["forwards"]),
            compact(attack["backwards"]),
            seconds(attack["seconds"]),
        )
    return table


def _health(summary: Summary) -> RenderableType:
    fired = [check for check in summary["health"] if check["fired"]]
    passed = [str(check["label"]) for check in summary["health"] if not check["fired"] and check["value"] is not None]
    lines = Text()
    for check in fired:
        severity = SEVERITIES.get(str(check["severity"]), str(check["severity"]))
        lines.append("does not hold: ", style="bold red" if check["severity"] != "note" else "bold")
        lines.append(f"{check['label']}: {quantity(check['value'])} ({check['limit']}; {severity})\n")
        lines.append(f"    {check['detail']}\n")
    lines.append(f"holds: {'; '.join(passed) or MISSING}")
    return lines
