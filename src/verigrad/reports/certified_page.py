"""The page of a run of certificates, and the files that are written beside its ledger."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from verigrad.reports.certified import Certificates, as_dict
from verigrad.reports.certified_figure import NAMES, certified_figure
from verigrad.reports.certified_table import contradicted, feet, passes
from verigrad.reports.figures import NARROW, WIDE
from verigrad.reports.html import leaf_rows, render
from verigrad.reports.write import as_json, write_text

# What each class promises, for those who see its word for the first time.
CLASSES = {
    "sound": "proved: no image inside the radius is classified otherwise",
    "probabilistic": "holds with a stated probability over its own random draws",
    "estimate": "can be wrong; only attacks tell how often",
}


class CertifiedFiles(NamedTuple):
    """The files that were written."""

    numbers: Path
    page: Path


def write_certificates(found: Certificates, folder: str | Path) -> CertifiedFiles:
    """Draws FOLDER/certificates.json and FOLDER/certificates.html anew."""
    folder = Path(folder)
    written = CertifiedFiles(folder / "certificates.json", folder / "certificates.html")
    write_text(written.numbers, as_json(as_dict(found)))
    write_text(written.page, certified_page(found, folder=folder.resolve().name))
    return written


def certified_page(found: Certificates, *, folder: str = "DIR") -> str:
    """The page as text: one file, no network."""
    sizes = ((WIDE, "certified-wide"), (NARROW, "certified-narrow"))
    look = "".join(
        files("verigrad.reports").joinpath(name).read_text(encoding="utf-8") for name in ("curve.css", "certified.css")
    )
    return render(
        "certified.html.j2",
        c=found,
        title=str(found.identity["model"]),
        look=Markup(look),
        norm=NAMES[found.norm],
        figures=[certified_figure(found, width, name) for width, name in sizes],
        remarks=feet(found),
        classes=[(name, told) for name, told in CLASSES.items() if any(row.honesty == name for row in found.rows)],
        passes=passes,
        contradicted=contradicted,
        identity=leaf_rows(found.identity),
        folder=shlex.quote(folder),
    )
