"""Table B.4 of the gradient-regularization paper: the step h of the finite differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from verigrad.core.errors import BadInput
from verigrad.papers.gradient_regularization import B4
from verigrad.papers.gradient_regularization_measures import cells, error_at, nearest, wrong
from verigrad.papers.gradient_regularization_settings import SETTINGS, UNDEFENDED
from verigrad.papers.result import Finding, Measured, Result, Series, row_of
from verigrad.papers.workshop import Workshop

DOUBLE = "double backprop"


def b4(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Errors by h, of the first seed; claims and the figure are of all seeds. Where a training diverges its cells say
    so, and the claims are of the others."""
    at = SETTINGS[scale]
    workshop.net(at.net(UNDEFENDED))  # whatever is wrong with the data shows here
    runs: list[dict[str, dict[str, Measured]]] = []
    for seed in at.seeds:
        rows: dict[str, dict[str, Measured]] = {}
        for row in B4.rows():
            trial = at.attacked(workshop, row[0], "linf", seed=seed)
            try:
                near = nearest(trial, at.attacks["linf"])
            except BadInput as fault:
                if not row[0].startswith("h="):
                    raise
                if seed == at.seeds[0]:
                    nothing, why = dict.fromkeys(B4.columns), f"the training diverges. {fault}".rstrip(".")
                    yield from row_of(B4, row, nothing, band=5.0, protocol=at.protocol, reason=why)
                continue
            rows[row[0]] = {"clean error %": wrong(at.certified(workshop, row[0], seed=seed))}
            rows[row[0]] |= {f"error {size} %": error_at(near, eps) for size, eps in at.sizes.items()}
            if seed == at.seeds[0]:
                yield from cells(B4, row, rows[row[0]], at)
        runs.append(rows)
    known = [row for row in runs[0] if all(row in run for run in runs)]
    means = {row: {c: sum(run[row][c].value for run in runs) / len(runs) for c in B4.columns} for row in known}
    sweep = [row for row in means if row.startswith("h=")]
    yield from _curves(means, sweep)
    pixels = math.prod(workshop.images(at.data, "test", 1).x.shape[1:])
    why = f"At h = 1 a pixel moves by {1 / math.sqrt(pixels):.3f} here, and by 0.018 on CIFAR-10; the larger attack is "
    yield from _claims(means, sweep, len(runs), f"{why}{at.sizes['8/255']:.3f} here, and 0.031 there")


def _curves(means: Mapping[str, Mapping[str, float]], sweep: Sequence[str]) -> Iterator[Series]:
    label = "h, in L2 and pixels of [0, 1]"
    for column in B4.columns:
        for kind, of in (("ours", means), ("paper", _printed())):
            shown = [row for row in of if row.startswith("h=") and (kind == "paper" or row in sweep)]
            sizes = tuple(float(row.removeprefix("h=")) for row in shown)
            values = tuple(of[row][column] for row in shown)
            name = f"{column.removesuffix(' %')}, {kind}"
            yield Series(B4.id, "The step h", name, sizes, values, label, "error %")


def _printed() -> Mapping[str, Mapping[str, float]]:
    said: dict[str, dict[str, float]] = {}
    for cell in B4.cells():
        assert isinstance(cell.printed, float)
        said.setdefault(cell.row[0], {})[cell.column] = cell.printed
    return said


def _claims(means: Mapping[str, Mapping[str, float]], sweep: list[str], seeds: int, why: str = "") -> Iterator[Finding]:
    """What table B.4 shows; why: the reason given where h = 1 is not what it is there."""
    of = f"mean of {seeds} seed{'s' if seeds > 1 else ''}"
    for column in B4.columns[1:]:
        values = [means[row][column] for row in sweep]
        listed = ", ".join(f"{row} {value:.1f}" for row, value in zip(sweep, values, strict=True))
        yield Finding(
            B4.id,
            f"The {column.removesuffix(' %')} is least at an h in the middle, neither the smallest nor the largest",
            holds := len(values) > 2 and min(values[1:-1]) < min(values[0], values[-1]),
            f"{listed} % ({of})",
            "" if holds else why,
        )
        yield Finding(
            B4.id,
            f"The best h leaves a smaller {column.removesuffix(' %')} than double backprop",
            min(values) < means[DOUBLE][column],
            f"{min(values):.1f} against {means[DOUBLE][column]:.1f} % ({of})",
        )
    clean = [means[row]["clean error %"] for row in sweep]
    yield Finding(
        B4.id,
        "Clean error falls as h grows",
        all(a >= b for a, b in pairwise(clean)),
        ", ".join(f"{row} {value:.1f}" for row, value in zip(sweep, clean, strict=True)) + f" % ({of})",
    )
    if "h=1" in means:
        last, plain = (means[row]["error 8/255 %"] for row in ("h=1", UNDEFENDED))
        yield Finding(
            B4.id,
            "With h = 1 errors at 8/255 are within 20 points of the undefended net's",
            plain - last <= 20.0,
            f"{last:.1f} against {plain:.1f} % ({of})",
            "" if plain - last <= 20.0 else why,
        )
