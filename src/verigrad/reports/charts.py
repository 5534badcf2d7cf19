"""A summary's figures: what of it is drawn, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from verigrad.reports import figures, numbers
from verigrad.reports.summary import Summary, claimed_text, gap_text
from verigrad.reports.waterfall import Step, waterfall


def accuracies(summary: Summary, width: float, name: str) -> Markup:
    """Clean, claimed and found as bars, with the interval and the gap."""
    n = summary["n"]
    low, high = summary["interval"]
    found = numbers.percent(summary["found"], n)
    wide = width > figures.NARROW
    ends = numbers.interval(summary["interval"], n)
    rows = [
        figures.Bar("clean", summary["clean"], numbers.percent(summary["clean"], n), "clean"),
        figures.Bar("claimed", summary["claimed"], claimed_text(summary), "claimed"),
        figures.Bar(
            "found", summary["found"], f"{found} ({ends})" if wide else found, f"found {summary['verdict']}", low, high
        ),
    ]
    if summary["found_alone"] is not None:
        alone = numbers.percent(summary["found_alone"], n)
        rows.append(figures.Bar("alone" if not wide else "found, alone", summary["found_alone"], alone, "alone"))
    both = numbers.is_number(summary["found"]) and numbers.is_number(summary["claimed"])
    gap = None
    if both and summary["claimed"] > summary["found"]:
        text = f"gap {gap_text(summary)}"
        gap = figures.Gap(summary["found"], summary["claimed"], text, str(summary["verdict"]), 2)
    return figures.bars(rows, width=width, name=f"accuracies-{name}", gap=gap)


def attacks(summary: Summary, width: float, name: str) -> Markup:
    """The waterfall of the attacks."""
    n = summary["n"]
    steps = [
        Step(
            stage=str(attack["stage"]),
            name=str(attack["name"]),
            remaining=attack["remaining"],
            alone=attack["accuracy"],
            added=int(attack["added"]),
            attempted=int(attack["attempted"]),
            hover=_hover(attack, n),
        )
        for attack in summary["attacks"]
    ]
    return waterfall(
        steps,
        clean=summary["clean"],
        claimed=summary["claimed"],
        claim_text=claimed_text(summary),
        n=n,
        width=width,
        name=f"waterfall-{name}",
    )


def strip(summary: Summary, name: str) -> Markup:
    """The interval in one table row."""
    n = summary["n"]
    low, high = summary["interval"]
    ends = numbers.interval(summary["interval"], n)
    found = numbers.percent(summary["found"], n)
    return figures.strip(
        claimed=summary["claimed"],
        found=summary["found"],
        low=low,
        high=high,
        name=name,
        look=str(summary["verdict"]),
        desc=f"claimed {claimed_text(summary)}, found {found}, 95 % interval {ends}",
    )


def _hover(attack: Mapping[str, Any], n: int) -> str:
    return (
        f"{attack['name']} ({attack['stage']}): tried on {numbers.count(attack['attempted'])}, broke "
        f"{numbers.count(attack['broken'])}, {numbers.count(attack['added'])} of them new; "
        f"{numbers.percent(attack['remaining'], n)} left. {attack['attack']}"
    )
