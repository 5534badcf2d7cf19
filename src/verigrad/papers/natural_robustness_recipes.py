"""How the tables of the natural-robustness paper are redone, and the list of all its recipes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verigrad.core.threat import Linf
from verigrad.papers.natural_robustness import CLEAN, TABLE1_CIFAR, TABLE1_MNIST, TABLE2
from verigrad.papers.natural_robustness_figures import figure1, figure2, figure3
from verigrad.papers.natural_robustness_settings import BAND, MODELS, Half, half
from verigrad.papers.natural_robustness_theorems import theorems
from verigrad.papers.recipe import Recipe
from verigrad.papers.result import Finding, Measured, Result, row_of
from verigrad.papers.table import Table
from verigrad.papers.workshop import Net, Workshop

STRONGEST = "strongest attack at the largest eps %"


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """FGSM and PGD at four sizes, and what the strongest attack leaves at the largest of them."""
    clean: dict[str, dict[str, Measured | None]] = {name: {} for name in MODELS}
    for name, table in (("MNIST", TABLE1_MNIST), ("CIFAR-10", TABLE1_CIFAR)):
        at = half(scale, name)
        left: dict[tuple[str, str], list[float]] = {}
        for row in table.rows():
            attack, model = row
            spec = "fgsm" if attack == "FGSM" else f"pgd:steps={at.steps},step_size=0.01,keep=last"
            found = {column: at.trial(workshop, model, _eps(column)).left(spec) for column in table.columns}
            yield from row_of(table, row, found, band=BAND, protocol=at.told)
            left[attack, model] = [one.value for one in found.values()]
        for model in MODELS:
            clean[model][f"{name} %"] = at.trial(workshop, model, _eps(table.columns[0])).natural()
        yield from _masking(workshop, at, table, name, left["FGSM", "neural ODE"])
        yield _above(table, name, left)
    for model, found in clean.items():
        told = "; ".join(f"{name}: {half(scale, name).told}" for name in ("MNIST", "CIFAR-10"))
        yield from row_of(CLEAN, (model,), found, band=BAND, protocol=told)
    first, fgsm = clean["neural ODE"]["MNIST %"], half(scale, "MNIST")
    worst = [fgsm.trial(workshop, "neural ODE", _eps(column)).left("fgsm").value for column in TABLE1_MNIST.columns]
    assert first is not None
    yield Finding(
        TABLE1_MNIST.id,
        "On MNIST FGSM takes less than 2 points of the neural ODE's accuracy at every eps (section 4.2.1)",
        first.value - min(worst) < 2.0,
        f"{first.value:.1f} % clean, {', '.join(f'{value:.0f}' for value in worst)} % under FGSM",
    )


def _masking(workshop: Workshop, at: Half, table: Table, name: str, fgsm: list[float]) -> Iterator[Result | Finding]:
    """Whether FGSM's curve is flat because the model is robust: the strongest attack says."""
    strongest = at.trial(workshop, "neural ODE", _eps(table.columns[-1])).left(*at.strongest())
    yield from row_of(table, ("strongest", "neural ODE"), {STRONGEST: strongest}, band=BAND, protocol=at.told)
    yield Finding(
        table.id,
        f"On {name} FGSM's accuracy on the neural ODE hardly depends on eps",
        max(fgsm) - min(fgsm) <= 2.0,
        f"{', '.join(f'{value:.0f} %' for value in fgsm)} at {', '.join(c.removesuffix(' %') for c in table.columns)}",
    )
    yield Finding(
        table.id,
        f"On {name} the neural ODE is robust under FGSM at the largest eps: the strongest attack leaves no less",
        fgsm[-1] - strongest.value <= BAND,
        f"FGSM leaves {fgsm[-1]:.0f} %, the strongest attack {strongest.value:.0f} %",
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One scale of table 2. `lr` is the rate of SGD, `ode` that of Adam; `inner` and `yopo` are the steps of the inner
    attacks and the passes of YOPO; `steps` those of the attack."""

    data: str
    train: int | None
    n: int
    eps: float
    epochs: int
    yopo_epochs: int
    lr: float
    inner: int
    yopo: int
    steps: int
    net: str
    weight_decay: float = 0.0
    crop: int = 0
    told: str

    def spec(self, training: str) -> str:
        threat = f"threat=linf(eps={self.eps:.6g})"
        return {
            "PGD-10": f"adversarial:{threat},attack=pgd(steps={self.inner},keep=last)",
            "TRADES-10": f"trades:{threat},beta=6,steps={self.inner}",
            "YOPO-5-3": f"yopo:{threat},passes={self.yopo},steps=3",
        }[training]

    def trained(self, training: str) -> Net:
        yopo = training == "YOPO-5-3"
        return Net(
            model=self.net,
            data=self.data,
            n=self.train,
            objective="natural" if yopo else self.spec(training),
            algorithm=self.spec(training) if yopo else None,
            epochs=self.yopo_epochs if yopo else self.epochs,
            # One update is by the sum of so many gradients.
            lr=self.lr / self.yopo if yopo else self.lr,
            weight_decay=self.weight_decay,
            schedule="one-cycle",
            crop=self.crop,
            flip=self.crop > 0,
        )


DIGITS = "digits 8×8 in place of CIFAR-10"
TABLE2_SETTINGS = {
    "smoke": Trained(
        data="digits",
        train=100,
        n=10,
        eps=0.1,
        epochs=1,
        yopo_epochs=1,
        lr=0.05,
        inner=1,
        yopo=1,
        steps=2,
        net="preact-resnet18:channels=4",
        told=f"{DIGITS}, 100 training images, one epoch, 4 channels: this only shows that it runs",
    ),
    "cpu": Trained(
        data="digits",
        train=None,
        n=200,
        eps=0.1,
        epochs=12,
        yopo_epochs=8,
        lr=0.1,
        inner=10,
        yopo=5,
        steps=20,
        net="preact-resnet18:channels=8",
        told=f"{DIGITS} for the adversarially trained nets, eps 0.1 for 8/255, 12 epochs, 8 channels for 64, n = 200",
    ),
    "gpu": Trained(
        data="cifar10",
        train=None,
        n=1000,
        eps=8 / 255,
        epochs=15,
        yopo_epochs=10,
        lr=0.1,
        inner=10,
        yopo=5,
        steps=20,
        net="preact-resnet18",
        weight_decay=5e-4,
        crop=4,
        told="15 epochs (YOPO: 10), n = 1,000, seed 0",
    ),
    "paper": Trained(
        data="cifar10",
        train=None,
        n=10000,
        eps=8 / 255,
        epochs=105,
        yopo_epochs=40,
        lr=0.1,
        inner=10,
        yopo=5,
        steps=20,
        net="preact-resnet18",
        weight_decay=5e-4,
        crop=4,
        told="105 epochs (YOPO: 40), as the YOPO code has them; the paper says nothing",
    ),
}


def table2(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Three adversarial trainings and a neural ODE that had none; and what the strongest attack leaves of each."""
    at, ode = TABLE2_SETTINGS[scale], half(scale, "CIFAR-10")
    pgd, margin = f"pgd:steps={at.steps},keep=last", f"pgd:steps={at.steps},score=margin"
    left: dict[str, tuple[float, float]] = {}
    for row in TABLE2.rows():
        _, training = row
        natural = training == "natural"
        trial = workshop.trial(ode.net("neural ODE") if natural else at.trained(training), Linf(eps=at.eps), n=at.n)
        found: dict[str, Measured | None] = {"clean %": trial.natural(), "PGD-20 %": trial.left(pgd)}
        strongest = trial.left(*(ode.strongest() if natural else ("fgsm", margin)))
        told = f"{at.told}; {ode.told}" if natural else at.told
        yield from row_of(TABLE2, row, {**found, "strongest attack %": strongest}, band=BAND, protocol=told)
        left[training] = (trial.left(pgd).value, strongest.value)
    natural, trained = left.pop("natural"), left.values()
    shown = "; ".join(f"{name} {a:.0f} and {b:.0f} %" for name, (a, b) in left.items())
    for index, attack in enumerate(("PGD-20", "the strongest attack")):
        yield Finding(
            TABLE2.id,
            f"Under {attack} more is left of the neural ODE than of any adversarially trained net",
            all(natural[index] > one[index] for one in trained),
            f"PGD-20 and strongest: neural ODE {natural[0]:.0f} and {natural[1]:.0f} %, {shown}",
        )


RECIPES = (
    Recipe(id="natural-robustness/table1", title="FGSM and PGD on neural ODEs and ResNet50", redo=table1),
    Recipe(id="natural-robustness/table2", title="a neural ODE beside three adversarial trainings", redo=table2),
    Recipe(id="natural-robustness/figure1", title="ResNet56 with step sizes from 1 to 1e-10", redo=figure1),
    Recipe(id="natural-robustness/figure2", title="DI²-FGSM on neural ODEs and ResNet50", redo=figure2),
    Recipe(id="natural-robustness/figure3", title="the Boundary attack on neural ODEs and ResNet50", redo=figure3),
    Recipe(id="natural-robustness/theorems", title="how errors grow, against the bounds", redo=theorems),
)
