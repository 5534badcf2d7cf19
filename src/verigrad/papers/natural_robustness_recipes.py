"""How the tables of the natural-robustness paper are redone, and the list of all its recipes."""

from __future__ import annotations

from collections.abc import Iterator

from verigrad.papers.natural_robustness import CLEAN, TABLE1_CIFAR, TABLE1_MNIST
from verigrad.papers.natural_robustness_figures import figure2, figure3
from verigrad.papers.natural_robustness_settings import BAND, MODELS, Half, half
from verigrad.papers.natural_robustness_sweep import figure1
from verigrad.papers.natural_robustness_table2 import table2
from verigrad.papers.natural_robustness_theorems import theorems
from verigrad.papers.recipe import Recipe, Redo, cost_by_scale
from verigrad.papers.result import Finding, Measured, Result, row_of
from verigrad.papers.table import Table
from verigrad.papers.workshop import Trial, Workshop

BOTH = "MNIST, CIFAR-10"

# Why FGSM's accuracy is no robustness.
FLAT = "one step of cross-entropy is a weak attack: more steps, a margin and a frozen grid find what it misses"
STRONGEST = "strongest attack at the largest eps %"


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """FGSM and PGD at four sizes, and what the strongest attack leaves at the largest of them."""
    clean: dict[str, dict[str, Measured | None]] = {name: {} for name in MODELS}
    for name, table in (("MNIST", TABLE1_MNIST), ("CIFAR-10", TABLE1_CIFAR)):
        at = half(scale, name)
        trials = {(m, column): at.trial(workshop, m, _eps(column)) for m in MODELS for column in table.columns}
        specs = {"FGSM": "fgsm", "PGD": f"pgd:steps={at.steps},step_size=0.01,keep=last"}
        left: dict[tuple[str, str], list[float]] = {}
        for row in table.rows():
            attack, model = row
            found = {column: trials[model, column].left(specs[attack]) for column in table.columns}
            yield from row_of(table, row, found, band=BAND, protocol=at.told)
            left[attack, model] = [one.value for one in found.values()]
        for model in MODELS:
            clean[model][f"{name} %"] = trials[model, table.columns[0]].natural()
        chain = at.strongest(specs["PGD"])
        yield from _masking(trials["neural ODE", table.columns[-1]], at, table, name, left["FGSM", "neural ODE"], chain)
        yield _above(table, name, left)
        if name == "MNIST":
            yield _small_loss(trials["neural ODE", table.columns[0]].natural(), left["FGSM", "neural ODE"], at)
    for model, found in clean.items():
        told = "; ".join(f"{name}: {half(scale, name).told}" for name in ("MNIST", "CIFAR-10"))
        yield from row_of(CLEAN, (model,), found, band=BAND, protocol=told)


def _small_loss(clean: Measured, fgsm: list[float], at: Half) -> Finding:
    return Finding(
        TABLE1_MNIST.id,
        "On MNIST FGSM takes less than 2 points of the neural ODE's accuracy at every eps (section 4.2.1)",
        clean.value - min(fgsm) < 2.0,
        f"{clean.value:.1f} % clean, {', '.join(f'{value:.0f}' for value in fgsm)} % under FGSM",
        at.told,
    )


def _masking(
    trial: Trial, at: Half, table: Table, name: str, fgsm: list[float], chain: tuple[str, ...]
) -> Iterator[Result | Finding]:
    """Whether FGSM's curve is flat because the model is robust: the strongest attack says."""
    strongest, clean = trial.left(*chain), trial.natural()
    steps = [trial.left(*chain[:count]).value for count in range(1, len(chain))]
    yield from row_of(table, ("strongest", "neural ODE"), {STRONGEST: strongest}, band=BAND, protocol=at.told)
    yield Finding(
        table.id,
        f"On {name} FGSM's accuracy on the neural ODE hardly depends on eps",
        max(fgsm) - min(fgsm) <= 2.0,
        f"{', '.join(f'{value:.0f} %' for value in fgsm)} at {', '.join(c.removesuffix(' %') for c in table.columns)}",
    )
    yield Finding(
        table.id,
        f"On {name} the neural ODE keeps half of its accuracy at the largest eps, and FGSM is as good as any",
        fgsm[-1] - strongest.value <= BAND and strongest.value >= clean.value / 2,
        f"of {clean.value:.0f} % FGSM leaves {fgsm[-1]:.0f} %, then PGD on the margin {steps[1]:.0f} % with the grid "
        f"frozen, {steps[2]:.0f} % through the steps of the solver, and all together {strongest.value:.0f} %",
        FLAT,
    )


def _above(table: Table, name: str, left: dict[tuple[str, str], list[float]]) -> Finding:
    pairs = [
        (a, b)
        for attack in ("FGSM", "PGD")
        for a, b in zip(left[attack, "neural ODE"], left[attack, "ResNet50"], strict=True)
    ]
    return Finding(
        table.id,
        f"On {name} FGSM and PGD leave more of the neural ODE than of ResNet50, at every eps",
        all(a > b for a, b in pairs),
        "; ".join(f"{a:.0f} against {b:.0f} %" for a, b in pairs),
    )


def _eps(column: str) -> float:
    size, _, over = column.removesuffix(" %").partition("/")
    return float(size) / float(over or 1)


def _recipe(what: str, title: str, redo: Redo, minutes: int, needs: str = "CIFAR-10") -> Recipe:
    data = {"gpu": needs, "paper": needs}
    return Recipe(
        id=f"natural-robustness/{what}", title=title, redo=redo, cost=cost_by_scale(f"{minutes} min"), needs=data
    )


RECIPES = (
    _recipe("table1", "FGSM and PGD on neural ODEs and ResNet50", table1, 5, BOTH),
    _recipe("table2", "a neural ODE beside three adversarial trainings", table2, 3),
    _recipe("figure1", "ResNet56 with step sizes from 1 to 1e-10", figure1, 2),
    _recipe("figure2", "DI²-FGSM on neural ODEs and ResNet50", figure2, 2, BOTH),
    _recipe("figure3", "the Boundary attack on neural ODEs and ResNet50", figure3, 2, BOTH),
    _recipe("theorems", "how errors grow, against the bounds", theorems, 2),
)
