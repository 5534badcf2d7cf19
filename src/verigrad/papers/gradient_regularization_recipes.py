"""How tables 1 and 2 and figure 1 of the gradient-regularization paper are redone; and what is said of ImageNet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from verigrad.papers.gradient_regularization import B3_IMAGENET, TABLE1, TABLE1_IMAGENET, TABLE2, TABLE2_IMAGENET
from verigrad.papers.gradient_regularization_bounds import b3, b5, b6
from verigrad.papers.gradient_regularization_claims import STRONG, Values, costs, defences, distances, honesty
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
from verigrad.papers.recipe import SCALES, Recipe, Redo, cost_by_scale
from verigrad.papers.result import Finding, Measured, Result, Series, Status, row_of
from verigrad.papers.workshop import Workshop

FIGURE1 = "gradient-regularization/figure1"
IMAGENET = "gradient-regularization/imagenet"
# The curves of figure 1, by norm: the step 0.1 of table 1 under Linf, 0.01 under L2.
CURVES = {
    "linf": (UNDEFENDED, "l1 finite differences λ=0.1", STRONG, "7-step Linf 8/255"),
    "l2": (UNDEFENDED, "l2 finite differences λ=0.1", "l2 finite differences λ=1", "7-step Linf 8/255"),
}


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
        found: dict[str, Measured | None] = {"clean error %": wrong(bounded)}
        found |= {f"omega {size} %": uncertified(plain, eps) for size, eps in at.sizes.items()}
        found |= {f"error {size} %": error_at(near, eps) for size, eps in at.sizes.items()}
        found["hours"] = hours(workshop, at, row[0])
        found |= {f"omega {size} by ascent %": uncertified(ascent, eps) for size, eps in at.sizes.items()}
        found["contradicted %"] = contradicted(plain, near)
        found["contradicted by ascent %"] = contradicted(ascent, near)
        yield from cells(TABLE1, row, found, at)
        values[row[0]] = {column: ours for column, ours in found.items() if ours is not None}
        finders += near.finders
    yield from defences(values)
    yield from costs(values)
    yield from honesty(values, finders, at.n * len(values))


def table2(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Mean distances under L2: bounds and attacks."""
    at = SETTINGS[scale]
    values: Values = {}
    for row in TABLE2.rows():
        near = nearest(at.attacked(workshop, row[0], "l2"), at.attacks["l2"])
        bounded = at.certified(workshop, row[0])
        constant = radii(bounded, "l-bound:norm=l2,sampler=images")
        plain, ascent = (radii(bounded, omega("l2", how)) for how in (BALL, ASCENT))
        found: dict[str, Measured | None] = {
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
        values[row[0]] = {column: ours for column, ours in found.items() if ours is not None}
    yield from distances(values)


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


def _recipe(what: str, title: str, redo: Redo, cpu: str) -> Recipe:
    needs = {"gpu": "CIFAR-10", "paper": "CIFAR-10"}
    return Recipe(id=f"gradient-regularization/{what}", title=title, redo=redo, cost=cost_by_scale(cpu), needs=needs)


RECIPES = (
    _recipe("table1", "errors under Linf, by bound and by attack", table1, "4 min"),
    _recipe("table2", "mean distances under L2", table2, "3 min"),
    _recipe("figure1", "error against eps", figure1, "seconds"),
    _recipe("b3", "gradient norms and ω", b3, "seconds"),
    _recipe("b4", "the step h of finite differences", b4, "3 min"),
    _recipe("b5", "errors certified by smoothing", b5, "1 min"),
    _recipe("b6", "errors certified by the omega-bound", b6, "seconds"),
    Recipe(
        id=IMAGENET,
        title="the rows on ImageNet-1k",
        redo=imagenet,
        cost={"paper": "days of several GPUs"},
        needs=dict.fromkeys(SCALES, "ImageNet-1k, several GPUs"),
    ),
)
