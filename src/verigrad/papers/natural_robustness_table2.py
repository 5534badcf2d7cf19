"""How table 2 of the natural-robustness paper is redone: a neural ODE beside three adversarial trainings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from verigrad.core.threat import Linf
from verigrad.papers.natural_robustness import TABLE2
from verigrad.papers.natural_robustness_settings import BAND, half
from verigrad.papers.result import Finding, Measured, Result, row_of
from verigrad.papers.workshop import Net, Workshop


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
        n=50,
        eps=0.1,
        epochs=6,
        yopo_epochs=6,
        lr=0.1,
        inner=10,
        yopo=5,
        steps=20,
        net="preact-resnet18:channels=4",
        told=f"{DIGITS}, eps 0.1 for 8/255, 6 epochs, 4 channels for 64, n = 50, seed 0",
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
        strongest = trial.left(*(ode.strongest(pgd) if natural else ("fgsm", margin, pgd)))
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
