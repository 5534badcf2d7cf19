"""Table B.4 of the gradient-regularization paper: the step h of the finite differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from verigrad.papers.gradient_regularization import B4
from verigrad.papers.gradient_regularization_measures import cells, error_at, nearest, wrong
from verigrad.papers.gradient_regularization_settings import SETTINGS, UNDEFENDED
from verigrad.papers.result import Finding, Measured, Result, Series
from verigrad.papers.workshop import Workshop

DOUBLE = "double backprop"


def b4(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Errors by h, of the first seed; claims and the figure are of all seeds."""
    at = SETTINGS[scale]
    runs: list[dict[str, dict[str, Measured]]] = []
    for seed in at.seeds:
        rows: dict[str, dict[str, Measured]] = {}
        for row in B4.rows():
            trial = at.attacked(workshop, row[0], "linf", seed=seed)
            near = nearest(trial, at.attacks["linf"])
            found = {"clean error %": wrong(trial)}
            found |= {f"error {size} %": error_at(near, eps) for size, eps in at.sizes.items()}
            if seed == at.seeds[0]:
                yield from cells(B4, row, found, at)
            rows[row[0]] = found
        runs.append(rows)
    means = {row: {c: sum(run[row][c].value for run in runs) / len(runs) for c in B4.columns} for row in runs[0]}
    sweep = [row for row in means if row.startswith("h=")]
    sizes = tuple(float(row.removeprefix("h=")) for row in sweep)
    for column in B4.columns:
        name = column.removesuffix(" %")
        for kind, of in (("ours", means), ("paper", _printed())):
            values = tuple(of[row][column] for row in sweep)
            yield Series(
                B4.id, "The step h", f"{name}, {kind}", sizes, values, "h, in L2 and pixels of [0, 1]", "error %"
            )
    yield from _claims(means, sweep, len(runs))


def _printed() -> Mapping[str, Mapping[str, float]]:
    said: dict[str, dict[str, float]] = {}
    for cell in B4.cells():
        assert isinstance(cell.printed, float)
        said.setdefault(cell.row[0], {})[cell.column] = cell.printed
    return said


def _claims(means: Mapping[str, Mapping[str, float]], sweep: list[str], seeds: int) -> Iterator[Finding]:
    of = f"mean of {seeds} seed{'s' if seeds > 1 else ''}"
    for column in B4.columns[1:]:
        values = [means[row][column] for row in sweep]
        listed = ", ".join(f"{row} {value:.1f}" for row, value in zip(sweep, values, strict=True))
        yield Finding(
            B4.id,
            f"The {column.removesuffix(' %')} is least at an h in the middle, neither the smallest nor the largest",
            min(values[1:-1]) < min(values[0], values[-1]),
            f"{listed} % ({of})",
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
    last = means[sweep[-1]]["error 8/255 %"]
    yield Finding(
        B4.id,
        "With h = 1 errors at 8/255 are within 20 points of the undefended net's",
        means[UNDEFENDED]["error 8/255 %"] - last <= 20.0,
        f"{last:.1f} against {means[UNDEFENDED]['error 8/255 %']:.1f} % ({of})",
    )
