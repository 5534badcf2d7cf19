"""The claims of tables 1 and 2 of the gradient-regularization paper, and whether they hold on what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from verigrad.papers.gradient_regularization import TABLE1, TABLE2
from verigrad.papers.gradient_regularization_settings import UNDEFENDED
from verigrad.papers.result import Finding, Measured

STRONG = "l1 finite differences λ=1 h=0.1"
# By row and column; what was not measured is not there.
Values = dict[str, dict[str, Measured]]


def defences(values: Values) -> Iterator[Finding]:
    """Which training leaves fewer errors under attack."""
    sizes = ("error 2/255 %", "error 8/255 %")
    weak = "l1 finite differences λ=0.1"
    orders = (
        ("The penalty by finite differences with λ = 1 leaves fewer errors than no defence", STRONG, UNDEFENDED),
        ("With λ = 0.1 finite differences leave fewer errors than double backprop", weak, "l1 double backprop λ=0.1"),
        ("With λ = 1 finite differences leave fewer errors than double backprop", STRONG, "l1 double backprop λ=1"),
        (
            "7-step training at 8/255 leaves fewer errors at 8/255 than the strongest penalty",
            "7-step Linf 8/255",
            STRONG,
        ),
    )
    for claim, better, worse in orders:
        asked = sizes[1:] if "at 8/255" in claim else sizes
        yield Finding(
            TABLE1.id,
            claim if len(asked) == 1 else f"{claim}, at both sizes",
            all(values[better][size].value < values[worse][size].value for size in asked),
            "; ".join(f"{size.removesuffix(' %')}: {_against(values, size, better, worse)}" for size in asked),
        )
    clean, robust = ([values[row][column].value for row in (STRONG, weak)] for column in ("clean error %", sizes[1]))
    yield Finding(
        TABLE1.id,
        "The stronger penalty trades clean accuracy for robustness: λ = 1 errs more than λ = 0.1 on clean images, by a "
        "point or more, and less at 8/255",
        clean[0] - clean[1] >= 1.0 and robust[0] < robust[1],
        f"clean {clean[0]:.1f} against {clean[1]:.1f} %, 8/255 {robust[0]:.1f} against {robust[1]:.1f} %",
    )


def _against(values: Values, column: str, one: str, other: str) -> str:
    return f"{values[one][column].value:.1f} against {values[other][column].value:.1f} %"


def costs(values: Values) -> Iterator[Finding]:
    """What training costs, as ratios of times."""
    fast = values[STRONG]["hours"].value
    for claim, slow in (
        ("7-step training takes over twice the time of the penalty by finite differences", "7-step Linf 8/255"),
        ("Double backprop takes half as long again as finite differences", "l1 double backprop λ=1"),
    ):
        ratio = values[slow]["hours"].value / fast
        least = 2.0 if slow.startswith("7") else 1.5
        why = "" if ratio >= least else "The paper has seen 10 % on nets of MNIST's size, and 50 % on CIFAR-10's"
        yield Finding(TABLE1.id, claim, ratio >= least, f"{ratio:.2f} times", why)


def honesty(values: Values, finders: Counter[str], images: int) -> Iterator[Finding]:
    """Whose error was nearest, and what attacks say of the bounds."""
    count, total = finders["smallest-eps"], finders.total()
    holds = total / 2 < count < 0.95 * total
    yield Finding(
        TABLE1.id,
        "PGD finds the nearest error of most images, and another attack that of many",
        holds,
        ", ".join(f"{'PGD' if one == 'smallest-eps' else one} {k}" for one, k in finders.most_common()),
        "" if holds else "PGD is made minimal by a bisection of eps for each image, which the paper does not speak of",
    )
    false = {
        column: sum(round(found[column].value * found[column].n / 100) for found in values.values())
        for column in ("contradicted %", "contradicted by ascent %")
    }
    told = f"of {images} images have an error nearer than their radius"
    yield Finding(
        TABLE1.id,
        "The omega-bound with random v is wrong on some images",
        false["contradicted %"] > 0,
        f"{false['contradicted %']} {told}",
    )
    yield Finding(
        TABLE1.id,
        "With v sought by ascent no attack contradicts it",
        false["contradicted by ascent %"] == 0,
        f"{false['contradicted by ascent %']} {told}",
    )
    yield _printed()


def _printed() -> Finding:
    """An upper bound of the error that lies below what attacks reach, in the paper's own table."""
    said = {(cell.row[0], cell.column): cell.printed for cell in TABLE1.cells()}
    gaps: dict[str, float] = {}
    for row in TABLE1.rows():
        for size in ("2/255", "8/255"):
            bound, reached = said[row[0], f"omega {size} %"], said[row[0], f"error {size} %"]
            assert isinstance(bound, float)
            assert isinstance(reached, float)
            if bound < reached:
                gaps[f"{row[0]} at {size}"] = reached - bound
    worst = max(gaps, key=gaps.__getitem__)
    return Finding(
        TABLE1.id,
        "The paper's own table contradicts the omega-bound, whose error should be no less than that of attacks",
        bool(gaps),
        f"in {len(gaps)} of {2 * len(TABLE1.rows())} cells, by up to {gaps[worst]:.1f} points ({worst})",
    )


def distances(values: Values) -> Iterator[Finding]:
    far = {row: found["nearest error"].value for row, found in values.items()}
    best = max(far, key=far.__getitem__)
    yield Finding(
        TABLE2.id,
        "The penalty by finite differences with λ = 1 puts errors farther away than any other training",
        best == "l2 finite differences λ=1",
        "; ".join(f"{row} {value:.2f}" for row, value in sorted(far.items(), key=lambda pair: -pair[1])[:4]),
    )
    double = far["l2 double backprop λ=1"]
    yield Finding(
        TABLE2.id,
        "By double backprop the same penalty hardly helps: its mean distance is at most 1.25 of the undefended net's",
        double <= 1.25 * far[UNDEFENDED],
        f"{double:.2f} against {far[UNDEFENDED]:.2f}",
    )
    for column in ("omega-bound", "omega-bound by ascent"):
        nearer = [row for row in values if row != UNDEFENDED and _nearer(values[row], column)]
        yield Finding(
            TABLE2.id,
            f"The {column} is nearer than the L-bound to what attacks find, on every defended net",
            len(nearer) == len(values) - 1,
            f"{len(nearer)} of {len(values) - 1} nets",
        )


def _nearer(found: Mapping[str, Measured], column: str) -> bool:
    reached = found["nearest error"].value
    return abs(found[column].value - reached) < abs(found["L-bound"].value - reached)
