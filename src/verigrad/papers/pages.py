"""The pages of the papers, drawn from result files: `python -m verigrad.papers.pages RESULTS OUT`.

RESULTS holds `<scale>/<paper>-<what>.json` as `reproduce` writes them; OUT gets `<paper>.md` and `figures/*.svg`, and
has `notes/<paper>.md`, which end the pages. Nothing is trained or attacked, and the same files give the same pages.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verigrad.papers import figures, gradient_regularization, natural_robustness, optimal_control, sonet
from verigrad.papers.figures_shown import SHOWN
from verigrad.papers.pages_tables import MARKS, bands, blocks, protocols, reasons, written
from verigrad.papers.table import Table

Told = Mapping[str, Any]
PAPERS: Mapping[str, Sequence[Table]] = {
    "sonet": sonet.TABLES,
    "optimal-control": optimal_control.TABLES,
    "natural-robustness": natural_robustness.TABLES,
    "gradient-regularization": gradient_regularization.TABLES,
}
SCALES = ("cpu", "gpu", "paper", "smoke")
READING = (
    "Cells read *paper → **ours***, with the 95 % interval of ours below: `=` within the band that is allowed, `≠` "
    "outside, `–` not run. *Columns in italics* and rows without an arrow are what the paper lacks.\n\n"
    "A claim marked `=` holds for the numbers measured here, on one net of each kind where no more seeds are named. "
    "With the few images of the `cpu` scale an order is often within chance: the intervals tell. Names of data in "
    "rows, claims and figures are the paper's; what stands in their place is told after *Ours*."
)


def draw(results: Path, out: Path, notes: Path | None = None) -> tuple[Path, ...]:
    """Writes the pages of all papers and their figures; gives what was written. Figures that are not drawn any more go.

    Args:
        results: the folder with a folder for each scale.
        out: where the pages go.
        notes: the folder of the notes, `out/notes` by default.
    """
    told = _read(results)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    done: list[Path] = []
    for paper, tables in PAPERS.items():
        mine = [one for one in told if one["id"].partition("/")[0] == paper]
        drawings = {
            figures.file_name(one["id"], name, one["scale"]): figures.drawn(curves)
            for one in mine
            for name, curves in figures.by_figure(one["series"]).items()
        }
        for old in (out / "figures").glob(f"{paper}-*.svg"):
            if old.name not in drawings:
                old.unlink()
        for name, text in drawings.items():
            done.append(_wrote(out / "figures" / name, text))
        noted = (notes or out / "notes") / f"{paper}.md"
        title, rest = _noted(noted) if noted.exists() else (paper, "")
        done.append(_wrote(out / f"{paper}.md", page(title, tables, mine, rest)))
    return tuple(done)


def page(title: str, tables: Sequence[Table], told: Sequence[Told], notes: str = "") -> str:
    """One paper's page, of its printed tables and all result files about it."""
    known = [table.id for table in tables]
    ids = list(dict.fromkeys([*known, *(id for id in SHOWN if _paper(id) in map(_paper, known)), *_ids(told)]))
    ids.sort(key=_order)
    lines = [
        f"# {title}",
        "",
        "Drawn by `make papers` from [results](results/); [notes](notes/) are written by hand.",
        "",
    ]
    lines += [READING, "", "## At a glance", "", *_glance(ids, told), "", *_verdicts(told)]
    for id in ids:
        lines += _section(id, [table for table in tables if table.id == id], [one for one in told if one["id"] == id])
    if notes:
        lines += ["## Notes: what is built, deviations, errata", "", notes.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _glance(ids: Sequence[str], told: Sequence[Told]) -> list[str]:
    lines = [
        "| id | scale | `=` | `≠` | `–` | claims that hold | that do not | CPU minutes |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for id in ids:
        mine = [one for one in told if one["id"] == id]
        for one in mine:
            count = Counter(cell["status"] for cell in one["cells"] if cell["printed"] is not None)
            claims = Counter(claim["status"] for claim in one["findings"])
            numbers = [count["match"], count["differs"], count["not run"], claims["match"], claims["differs"]]
            minutes = f"{one.get('cpu_seconds', one['seconds']) / 60:.1f}"
            lines.append(f"| `{id}` | {one['scale']} | {' | '.join(map(str, numbers))} | {minutes} |")
        if not mine:
            lines.append(f"| `{id}` | not run | | | | | | |")
    return lines


def _verdicts(told: Sequence[Told]) -> list[str]:
    """What agrees and what differs, by the papers' claims."""
    lines: list[str] = []
    for head, status in (("What agrees", "match"), ("What differs, and why", "differs")):
        claims = [(one, claim) for one in told for claim in one["findings"] if claim["status"] == status]
        said = [f"- {_claim(claim)} `{one['id']}`, {one['scale']}" for one, claim in claims]
        lines += [f"## {head}", "", *(said or ["Nothing has been run." if not told else "No claim."]), ""]
    return lines


def _section(id: str, tables: Sequence[Table], told: Sequence[Told]) -> list[str]:
    title = next(iter([*(one["title"] for one in told if "title" in one), *(table.title for table in tables)]), "")
    lines = [f"## `{id}`{': ' if title else ''}{title}", ""]
    if id in SHOWN:
        lines += [f"**The paper's.** {SHOWN[id]}", ""]
    if not told:
        return [*lines, "Not run.", ""]
    for one in told:
        lines += [f"**{one['scale']}.** {_provenance(one)}", ""]
        before = ""
        for block in blocks(one["cells"], tables):
            paper = f"*{block.table.title}.* Paper: {block.table.protocol}. " if block.table else ""
            ours = protocols(block)
            if said := f"{paper}{ours if ours != before else ''}".strip():
                lines += [said, ""]
            lines += [*written(block), ""]
            before = ours
        if within := bands(one["cells"]):
            lines += [within, ""]
        if why := reasons(one["cells"]):
            lines += [*why, ""]
        if one["findings"]:
            claims = [f"- `{MARKS[claim['status']]}` {_claim(claim)}" for claim in one["findings"]]
            lines += ["Claims:", "", *claims, ""]
        for name in figures.by_figure(one["series"]):
            lines += [f"![{name}](figures/{figures.file_name(id, name, one['scale'])})", ""]
    return lines


def _claim(claim: Told) -> str:
    why = claim.get("reason", "").rstrip(".")
    because = f" {why[0].upper()}{why[1:]}." if why else ""
    evidence = f" ({claim['evidence']})" if claim["evidence"] else ""
    return f"{claim['claim']}{evidence}.{because}"


def _provenance(one: Told) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in one["versions"].items())
    spent = f"{one.get('cpu_seconds', one['seconds']):.0f} s of the processor"
    parts = [f"`{one['command']}`", one.get("date", ""), one["machine"], versions, spent]
    return "; ".join(part for part in parts if part) + "."


def _read(results: Path) -> list[Told]:
    """All result files, scale by scale, and by name."""
    paths = [path for scale in SCALES for path in sorted((results / scale).glob("*.json"))]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _noted(path: Path) -> tuple[str, str]:
    """The title of the notes, and what stands below it; links as they are from the page's own folder."""
    head, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return head.lstrip("# "), rest.replace("](../../", "](../")


def _ids(told: Sequence[Told]) -> list[str]:
    return [one["id"] for one in told]


def _paper(id: str) -> str:
    return id.partition("/")[0]


def _order(id: str) -> tuple[int, str]:
    """Tables, figures, then the rest, each by name."""
    what = id.partition("/")[2]
    return next((i for i, word in enumerate(("table", "figure", "b")) if what.startswith(word)), 3), what


def _wrote(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m verigrad.papers.pages RESULTS OUT, such as docs/papers/results docs/papers")
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
