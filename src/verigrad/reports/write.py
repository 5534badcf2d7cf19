"""Writes reports next to a ledger, from the ledger alone. Each file appears whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verigrad.ledger.store import Ledger
from verigrad.reports.html import IndexRow, index_page, page
from verigrad.reports.sarif import sarif
from verigrad.reports.summary import gather, summary_of


class Reports(NamedTuple):
    """The files that were written."""

    audit: Path
    page: Path


def write_reports(folder: str | Path) -> Reports:
    """Draws FOLDER/audit.json and FOLDER/report.html anew from FOLDER/ledger.sqlite.

    Raises:
        LedgerError: there is no ledger, or its audit has not come to its end.
    """
    folder = Path(folder)
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        material = gather(ledger)
    written = Reports(folder / "audit.json", folder / "report.html")
    write_text(written.audit, as_json(material.summary))
    write_text(written.page, page(material, folder=folder.resolve().name))
    return written


def write_sarif(folder: str | Path, path: str | Path | None = None) -> Path:
    """Writes the SARIF log of FOLDER/ledger.sqlite, to FOLDER/audit.sarif unless a path is given.

    Raises:
        LedgerError: as `write_reports`.
    """
    folder = Path(folder)
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        log = sarif(summary_of(ledger))
    target = Path(path) if path is not None else folder / "audit.sarif"
    write_text(target, as_json(log))
    return target


def write_index(rows: Sequence[IndexRow], path: str | Path, *, title: str = "Audits") -> Path:
    """Writes the page that leads to several audits, in the order given."""
    write_text(Path(path), index_page(rows, title=title))
    return Path(path)


def as_json(value: Any) -> str:
    """Canonical and readable: keys sorted, two spaces, no NaN, a newline at the end."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """UTF-8, into a file beside `path` that then takes its place, so that a reader never sees half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        # mkstemp makes files for the owner only; a report gets the mode that the user's umask gives any new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
