"""How tables 1 and 2 and figure 1 of the gradient-regularization paper are redone; and what is said of ImageNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from verigrad.papers.gradient_regularization import B3_IMAGENET, TABLE1, TABLE1_IMAGENET, TABLE2, TABLE2_IMAGENET
from verigrad.papers.gradient_regularization_bounds import b3, b5, b6
from verigrad.papers.gradient_regularization_measures import (
    ASCENT,
    BALL,
    cells,
    contradicted,
    error_at,
    hours,
    mean,
    nearest,
    omega,
    radii,
    uncertified,
    wrong,
)
from verigrad.papers.gradient_regularization_settings import SETTINGS, UNDEFENDED
from verigrad.papers.gradient_regularization_steps import b4
from verigrad.papers.recipe import Recipe
from verigrad.papers.result import Finding, Measured, Result, Series, Status, row_of
from verigrad.papers.workshop import Workshop

FIGURE1 = "gradient-regularization/figure1"
IMAGENET = "gradient-regularization/imagenet"
STRONG = "l1 finite differences λ=1 h=0.1"
# The curves of figure 1, by norm: the step 0.1 of table 1 under Linf, 0.01 under L2.
CURVES = {
    "linf": (UNDEFENDED, "l1 finite differences λ=0.1", STRONG, "7-step Linf 8/255"),
    "l2": (UNDEFENDED, "l2 finite differences λ=0.1", "l2 finite differences λ=1", "7-step Linf 8/255"),
}
Values = dict[str, dict[str, Measured]]


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Errors by bound and by attack under Linf; and what the paper lacks: ω by ascent, and where bounds are wrong."""
    at = SETTINGS[scale]
    values: Values = {}
    finders: Counter[str] = Counter()
    for row in TABLE1.rows():
        near = nearest(at.attacked(workshop, row[0], "linf"), at.attacks["linf"])
        bounded = at.certified(workshop, row[0])
        ladder = tuple(at.sizes.values())
        plain, ascent = (radii(bounded, omega("linf", how, ladder)) for how in (BALL, ASCENT))
        found = {"clean error %": wrong(bounded)}
        found |= {f"omega {size} %": uncertified(plain, eps) for size, eps in at.sizes.items()}
        found |= {f"error {size} %": error_at(near, eps) for size, eps in at.sizes.items()}
        found["hours"] = hours(workshop, at, row[0])
        found |= {f"omega {size} by ascent %": uncertified(ascent, eps) for size, eps in at.sizes.items()}
        found["contradicted %"] = contradicted(plain, near)
        found["contradicted by ascent %"] = contradicted(ascent, near)
        yield from cells(TABLE1, row, found, at)
        values[row[0]] = found
        finders += near.finders
    yield from _defences(values)
    yield from _costs(values)
    yield from _honesty(values, finders, at.n * len(values))


def _defences(values: Values) -> Iterator[Finding]:
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
    yield Finding(
        TABLE1.id,
        "The stronger penalty trades clean accuracy for robustness: λ = 1 errs more on clean images than λ = 0.1, "
        "and less at 8/255",
        values[STRONG]["clean error %"].value > values[weak]["clean error %"].value
        and values[STRONG][sizes[1]].value < values[weak][sizes[1]].value,
        f"clean {_against(values, 'clean error %', STRONG, weak)}, 8/255 {_against(values, sizes[1], STRONG, weak)}",
    )


def _against(values: Values, column: str, one: str, other: str) -> str:
    return f"{values[one][column].value:.1f} against {values[other][column].value:.1f} %"


def _costs(values: Values) -> Iterator[Finding]:
    """What training costs, as ratios of times."""
    fast = values[STRONG]["hours"].value
    for claim, slow in (
        ("7-step training takes over twice the time of the penalty by finite differences", "7-step Linf 8/255"),
        ("Double backprop takes half as long again as finite differences", "l1 double backprop λ=1"),
    ):
        ratio = values[slow]["hours"].value / fast
        least = 2.0 if slow.startswith("7") else 1.5
        yield Finding(TABLE1.id, claim, ratio >= least, f"{ratio:.2f} times")


def _honesty(values: Values, finders: Counter[str], images: int) -> Iterator[Finding]:
    """Whose error was nearest, and what attacks say of the bounds."""
    name, count = finders.most_common(1)[0]
    yield Finding(
        TABLE1.id,
        "PGD finds the nearest error of most images, and another attack that of many",
        name == "smallest-eps" and count > finders.total() / 2 and finders.total() - count > finders.total() / 20,
        ", ".join(f"{'PGD' if one == 'smallest-eps' else one} {k}" for one, k in finders.most_common()),
    )
    for column, how in (("contradicted %", "random v"), ("contradicted by ascent %", "v by ascent")):
        false = sum(round(found[column].value * found[column].n / 100) for found in values.values())
        yield Finding(
            TABLE1.id,
            f"The omega-bound with {how} is wrong on some images",
            false > 0,
            f"{false} of {images} images have an error nearer than their radius",
        )


def table2(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Mean distances under L2: bounds and attacks."""
    at = SETTINGS[scale]
    values: Values = {}
    for row in TABLE2.rows():
        near = nearest(at.attacked(workshop, row[0], "l2"), at.attacks["l2"])
        bounded = at.certified(workshop, row[0])
        constant = radii(bounded, "l-bound:norm=l2,sampler=images")
        plain, ascent = (radii(bounded, omega("l2", how)) for how in (BALL, ASCENT))
        found = {
            "clean error %": wrong(bounded),
            "L-bound": mean(constant),
            "omega-bound": mean(plain),
            "nearest error": mean(near.distances),
            "hours": hours(workshop, at, row[0]),
            "omega-bound by ascent": mean(ascent),
            "L-bound contradicted %": contradicted(constant, near),
            "omega-bound contradicted %": contradicted(plain, near),
            "omega-bound by ascent contradicted %": contradicted(ascent, near),
        }
        yield from cells(TABLE2, row, found, at)
        values[row[0]] = found
    yield from _distances(values)


def _distances(values: Values) -> Iterator[Finding]:
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


def figure1(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Error against the size of the attack, from the nearest errors of tables 1 and 2."""
    at = SETTINGS[scale]
    top = {"linf": 2.5 * at.sizes["8/255"], "l2": 2.0}
    for norm, rows in CURVES.items():
        grid = tuple(top[norm] * k / 40 for k in range(41))
        errors: dict[str, list[Measured]] = {}
        for row in rows:
            near = nearest(at.attacked(workshop, row, norm), at.attacks[norm])
            errors[row] = [error_at(near, eps) for eps in grid]
            kept = dict(zip((f"{norm} {eps:g} %" for eps in grid[::10]), errors[row][::10], strict=True))
            for column, ours in kept.items():
                yield Result(FIGURE1, (row,), column, None, ours, None, Status.MATCH, "", at.protocol)
            values = tuple(one.value for one in errors[row])
            label = {"linf": "eps under Linf", "l2": "eps under L2"}[norm]
            yield Series(FIGURE1, f"Attacks under {_shown(norm)}", row, grid, values, label, "error %")
        yield _trade(norm, rows, errors)


def _trade(norm: str, rows: Sequence[str], errors: Mapping[str, Sequence[Measured]]) -> Finding:
    """Without an attack, and a quarter of the way."""
    nothing, weak, strong = ([errors[row][k].value for k in (0, 10)] for row in rows[:3])
    return Finding(
        FIGURE1,
        f"Under {_shown(norm)} a stronger penalty errs more on clean images and less under attack",
        nothing[0] <= weak[0] <= strong[0] and nothing[1] > weak[1] > strong[1],
        f"clean {nothing[0]:.1f}, {weak[0]:.1f}, {strong[0]:.1f} %; a quarter along the axis {nothing[1]:.1f}, "
        f"{weak[1]:.1f}, {strong[1]:.1f} %",
    )


def _shown(norm: str) -> str:
    return {"linf": "Linf", "l2": "L2"}[norm]


def imagenet(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """The rows on ImageNet-1k: what they need is said, and nothing is run."""
    del workshop
    why = "needs ImageNet-1k (138 GB, by registration), a ResNet-50 for 224×224 and several GPUs for days"
    for table in (TABLE1_IMAGENET, TABLE2_IMAGENET, B3_IMAGENET):
        for row in table.rows():
            nothing = dict.fromkeys(table.columns)
            yield from row_of(table, row, nothing, band=5.0, protocol=f"not run at {scale}", reason=why)
    yield Finding(
        IMAGENET, "Figure B.2: top-5 error rises more slowly with eps as λ grows, in both norms", None, "", why
    )


RECIPES = (
    Recipe(id=TABLE1.id, title="errors under Linf, by bound and by attack", redo=table1),
    Recipe(id=TABLE2.id, title="mean distances under L2", redo=table2),
    Recipe(id=FIGURE1, title="error against eps", redo=figure1),
    Recipe(id="gradient-regularization/b3", title="gradient norms and ω", redo=b3),
    Recipe(id="gradient-regularization/b4", title="the step h of finite differences", redo=b4),
    Recipe(id="gradient-regularization/b5", title="errors certified by smoothing", redo=b5),
    Recipe(id="gradient-regularization/b6", title="errors certified by the omega-bound", redo=b6),
    Recipe(id=IMAGENET, title="the rows on ImageNet-1k", redo=imagenet, needs={"paper": "ImageNet-1k, several GPUs"}),
)
