"""The HTML pages: one audit, and the index of several. One file each, no network, no text that could act as code.

Everything is escaped by the template engine, and a content security policy admits only the page's own script, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from verigrad.reports import charts, figures, numbers, pixels, words
from verigrad.reports.summary import Line, Material, Proof, Summary, claimed_text, gap_text, in_words, main_cause

STATES: dict[str, str] = {
    "stands": "nothing found",
    "later": "broken, but not by the claim's attack",
    "claim": "broken by the claim's attack",
    "wrong": "wrong without an attack",
}


class IndexRow(NamedTuple):
    """One audit of an index page: its summary, and where its own page lies, relative to the index."""

    summary: Summary
    href: str


class Card(NamedTuple):
    """One witness as drawn: three PNG data URIs."""

    line: Line
    stage: str
    clean: str
    change: str
    adversarial: str


def page(material: Material, *, folder: str = "DIR") -> str:
    """The page of one audit.

    Args:
        material: what `gather` read from the ledger.
        folder: the name of the ledger's folder, for the commands that are shown.
    """
    summary = material.summary
    cards = [_card(proof, material.scale) for proof in material.proofs]
    counts = {state: sum(line.state == state for line in material.lines) for state in STATES}
    return render(
        "page.html.j2",
        s=summary,
        claimed=claimed_text(summary),
        gap=gap_text(summary),
        reasons=[in_words(str(reason), summary) for reason in summary["reasons"]],
        verdict_meaning=words.verdict(summary["verdict"]),
        cause=main_cause(summary),
        accuracy_figures=[charts.accuracies(summary, width, name) for width, name in _SIZES],
        waterfall_figures=[charts.attacks(summary, width, name) for width, name in _SIZES],
        causes=_by_kind(summary),
        checks=sorted(summary["health"], key=_check_rank),
        cards=cards,
        shrink=pixels.shrink_factor(tuple(summary["data"]["shape"])),
        channels=summary["data"]["shape"][0],
        scale=material.scale,
        witnesses=material.witnesses,
        lines=material.lines,
        counts=counts,
        identity=leaf_rows(summary["identity"]),
        folder=shlex.quote(folder),
    )


def index_page(rows: Sequence[IndexRow], *, title: str = "Audits") -> str:
    """The page that leads to several audits, in the order given."""
    tally = {word: sum(row.summary["verdict"] == word for row in rows) for word in words.VERDICTS}
    entries = [
        {
            "s": row.summary,
            "href": row.href,
            "claimed": claimed_text(row.summary),
            "cause": main_cause(row.summary),
            "strip": charts.strip(row.summary, f"strip{i}"),
        }
        for i, row in enumerate(rows)
    ]
    return render("index.html.j2", title=title, rows=entries, tally=tally)


_SIZES = ((figures.WIDE, "wide"), (figures.NARROW, "narrow"))


def render(template: str, **values: Any) -> str:
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(style=Markup(_text("page.css")), script=Markup(script), script_hash=digest, **values)
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for name in ("percent", "stated", "interval", "tally", "count", "compact", "quantity", "seconds"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["breakable"] = _breakable
    environment.filters["unbroken"] = _unbroken
    environment.globals.update(
        MISSING=numbers.MISSING,
        KINDS=words.KINDS,
        SEVERITIES=words.SEVERITIES,
        VERDICTS=words.VERDICTS,
        GLOSSARY=words.GLOSSARY,
        JOINT=words.JOINT,
        STATES=STATES,
    )
    return environment


@cache
def _text(name: str) -> str:
    return files("verigrad.reports").joinpath(name).read_text(encoding="utf-8")


def _breakable(text: str) -> Markup:
    """A spec that may be broken behind its commas and parentheses, and only there as long as that is enough."""
    return Markup(re.sub(r"([,(])", r"\1<wbr>", str(escape(text))))


def _by_kind(summary: Summary) -> dict[str, list[Mapping[str, Any]]]:
    """Causes by kind, masking first; within a kind in the audit's own order."""
    causes = [{**cause, "evidence": in_words(str(cause["evidence"]), summary)} for cause in summary["causes"]]
    return {kind: [cause for cause in causes if cause["kind"] == kind] for kind in words.KINDS}


def _check_rank(check: Mapping[str, Any]) -> tuple[bool, int, bool]:
    """Fired first, the gravest of them foremost; what does not apply comes last."""
    return not check["fired"], [*words.SEVERITIES, check["severity"]].index(check["severity"]), check["value"] is None


def _unbroken(text: str) -> Markup:
    """A sentence whose numbers such as 1e-4 are not broken at their sign."""
    return Markup(re.sub(r"[\d.]+e-\d+", r'<span class="n">\g<0></span>', str(escape(text))))


def _card(proof: Proof, scale: float) -> Card:
    return Card(
        line=proof.line,
        stage=proof.stage,
        clean=pixels.image_uri(proof.image),
        change=pixels.perturbation_uri(proof.x_adv - proof.image, scale),
        adversarial=pixels.image_uri(proof.x_adv),
    )


def leaf_rows(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted keys and texts, in order of the keys."""
    leaves: list[tuple[str, str]] = []
    for key in sorted(value):
        item = value[key]
        if isinstance(item, Mapping):
            leaves += leaf_rows(item, f"{prefix}{key}.")
        elif isinstance(item, list | tuple):
            leaves.append((f"{prefix}{key}", ", ".join(map(str, item)) or numbers.MISSING))
        else:
            leaves.append((f"{prefix}{key}", numbers.MISSING if item is None or item == "" else str(item)))
    return leaves
