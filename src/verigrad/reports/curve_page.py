"""The page of a curve, and the files that are written beside its ledgers."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from verigrad.reports.curve import WORST, Curve, as_dict, feet
from verigrad.reports.curve_figure import curve_figure
from verigrad.reports.figures import NARROW, WIDE
from verigrad.reports.html import leaf_rows, render
from verigrad.reports.write import as_json, write_text


class CurveFiles(NamedTuple):
    """The files that were written."""

    numbers: Path
    page: Path


def write_curve(curve: Curve, folder: str | Path) -> CurveFiles:
    """Draws FOLDER/curve.json and FOLDER/curve.html anew; `curve` is what `gather_curve` read there."""
    folder = Path(folder)
    written = CurveFiles(folder / "curve.json", folder / "curve.html")
    write_text(written.numbers, as_json(as_dict(curve)))
    write_text(written.page, curve_page(curve, folder=folder.resolve().name))
    return written


def curve_page(curve: Curve, *, folder: str = "DIR") -> str:
    """The page as text: one file, no network.

    Args:
        folder: the name of the folder that holds the levels, for the commands that are shown.
    """
    sizes = ((WIDE, "curve-wide"), (NARROW, "curve-narrow"))
    last = len(curve.levels) - 1
    identity = {key: value for key, value in curve.identity.items() if key != "threat"}
    return render(
        "curve.html.j2",
        c=curve,
        title=str(curve.identity["model"]),
        look=Markup(files("verigrad.reports").joinpath("curve.css").read_text(encoding="utf-8")),
        shown=sorted({0, last // 2, last}),
        figures=[curve_figure(curve, width, name) for width, name in sizes],
        remarks=feet(curve),
        worst=WORST,
        identity=leaf_rows(identity),
        folder=shlex.quote(folder),
    )
