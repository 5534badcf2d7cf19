"""How figures 2 and 3 of the natural-robustness paper are redone. They print no numbers: what the text says of them is
what can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from verigrad.papers.natural_robustness_settings import BAND, HALVES, MODELS, Half, half
from verigrad.papers.result import Finding, Measured, Result, Series, compared
from verigrad.papers.workshop import Workshop

FIGURE2, FIGURE3 = (f"natural-robustness/figure{number}" for number in (2, 3))
# The sizes of figure 2, whose axes end at 0.5 and at 50 of 255; those of figure 3 are taken from it.
CURVES = {"MNIST": (0.1, 0.2, 0.3, 0.4, 0.5), "CIFAR-10": tuple(level / 255 for level in (10, 20, 30, 40, 50))}
# From this size on, in steps of 1/255, the text has the neural ODE above ResNet50 under Boundary on CIFAR-10.
CROSSING = 33


def figure2(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """DI²-FGSM at rising eps on the nets of table 1, and what the strongest attack leaves at the largest."""
    for name in HALVES:
        at = half(scale, name)
        yield from _curves(FIGURE2, workshop, at, name)


def _curves(table: str, workshop: Workshop, at: Half, name: str) -> Iterator[Result | Finding | Series]:
    sizes = CURVES[name]
    found: dict[str, list[Measured]] = {}
    for model in MODELS:
        clean = at.trial(workshop, model, sizes[0]).natural()
        spec = f"di2-fgsm:steps={at.diverse},keep=last"
        found[model] = [clean, *(at.trial(workshop, model, eps).left(spec) for eps in sizes)]
        yield from _curve(table, name, model, "DI²-FGSM", found[model], at.told)
    known = f"di2-fgsm:steps={at.diverse},keep=last"
    strongest = at.trial(workshop, "neural ODE", sizes[-1]).left(*at.strongest(known))
    row, column = (name, "strongest attack", "neural ODE"), f"{_shown(name, sizes[-1])} %"
    yield compared(table, row, column, None, strongest, band=BAND, protocol=at.told)
    net, ode = ([one.value for one in found[model]] for model in MODELS)
    yield Finding(
        table,
        f"On {name} DI²-FGSM takes less of the neural ODE's accuracy than of ResNet50's, at every eps",
        all(ode[0] - a < net[0] - b for a, b in zip(ode[1:], net[1:], strict=True)),
        f"neural ODE {_listed(ode)} %, ResNet50 {_listed(net)} % at {', '.join(_shown(name, e) for e in (0, *sizes))}",
    )
    yield Finding(
        table,
        f"On {name} the neural ODE keeps half of its accuracy at the largest eps, and DI²-FGSM is as good as any",
        ode[-1] - strongest.value <= BAND and strongest.value >= ode[0] / 2,
        f"of {ode[0]:.0f} % DI²-FGSM leaves {ode[-1]:.0f} %, the strongest attack {strongest.value:.0f} %",
    )


def figure3(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Boundary, one walk an image: accuracy at eps is the share of images with no error that near."""
    left: dict[str, dict[str, list[float]]] = {}
    for name in HALVES:
        at, sizes = half(scale, name), CURVES[name]
        left[name] = {}
        for model in MODELS:
            # The walk does not depend on the threat's size, which only says what counts as found.
            trial = at.trial(workshop, model, 1.0, walked=True)
            near = trial.distances(f"boundary:queries={at.queries}")
            clean = trial.natural()
            right = round(clean.value * clean.n / 100)
            found = [Measured.share(right - sum(d <= eps for d in near), clean.n) for eps in (0.0, *sizes)]
            left[name][model] = [one.value for one in found]
            yield from _curve(FIGURE3, name, model, "Boundary", found, at.told)
    yield from _walk_claims(left)


def _walk_claims(left: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Finding]:
    """Section 4.2.2."""
    mnist = left["MNIST"]["neural ODE"]
    yield Finding(
        FIGURE3,
        "On MNIST Boundary has almost no effect on the neural ODE: 10 points at most at eps = 0.5",
        mnist[0] - mnist[-1] <= 10.0,
        f"{_listed(mnist)} % at {', '.join(_shown('MNIST', eps) for eps in (0.0, *CURVES['MNIST']))}",
    )
    net, ode = (left["CIFAR-10"][model] for model in MODELS)
    beyond = [i for i, eps in enumerate((0.0, *CURVES["CIFAR-10"])) if eps * 255 > CROSSING]
    yield Finding(
        FIGURE3,
        "On CIFAR-10 the neural ODE fails under Boundary too: less than half of its accuracy is left at 50/255",
        ode[-1] < ode[0] / 2,
        f"{_listed(ode)} %",
    )
    yield Finding(
        FIGURE3,
        f"On CIFAR-10 more is left of the neural ODE than of ResNet50 where eps is above {CROSSING}/255",
        all(ode[i] > net[i] for i in beyond),
        f"neural ODE {_listed(ode)} %, ResNet50 {_listed(net)} % at 0, 10, 20, 30, 40, 50 of 255",
    )


def _curve(
    table: str, name: str, model: str, attack: str, found: list[Measured], told: str
) -> Iterator[Result | Series]:
    """The cells of one curve, at eps = 0 and at those of `CURVES`, and the curve."""
    sizes = (0.0, *CURVES[name])
    for eps, ours in zip(sizes, found, strict=True):
        yield compared(table, (name, attack, model), f"{_shown(name, eps)} %", None, ours, band=BAND, protocol=told)
    x, unit = (sizes, "eps") if name == "MNIST" else (tuple(eps * 255 for eps in sizes), "eps · 255")
    values = tuple(one.value for one in found)
    yield Series(table, f"{attack}, {name}", model, x, values, unit, "accuracy %")


def _shown(name: str, eps: float) -> str:
    return f"{eps:g}" if name == "MNIST" else f"{eps * 255:g}/255"


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
