"""The nets and sizes at which the tables of the gradient-regularization paper are redone, by the words of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verigrad.core.errors import BadInput
from verigrad.core.threat import L2, Linf, Threat
from verigrad.papers.workshop import Net, Trial, Workshop

UNDEFENDED = "undefended"
# Distances have no limit: these balls hold every valid image.
WIDE: Mapping[str, Threat] = {"linf": Linf(eps=1.0), "l2": L2(eps=100.0)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One scale.

    Args:
        data, train: the data, and how many training images (None: all).
        n, bounded: how many test images are attacked, and how many the bounds are fitted to and judged on.
        model: a network; `epochs` to `cutout` are how it is trained.
        sizes: eps under Linf, by the paper's words for it.
        at_steps: of the attack in adversarial training.
        attacks: minimal attacks, by norm.
        seeds: of the sweep of h.
        sigmas: of the noise in training and certifying; votes: copies of an image; smoothed: images.
        timed: how many steps of training are timed.
        told: what differs from the paper.
    """

    data: str
    train: int | None
    n: int
    bounded: int
    model: str
    epochs: int
    batch: int
    lr: float
    schedule: str
    weight_decay: float = 0.0
    crop: int = 0
    cutout: int = 0
    sizes: Mapping[str, float]
    at_steps: int = 7
    attacks: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    sigmas: tuple[float, ...]
    votes: int
    smoothed: int
    timed: int
    told: str

    @property
    def protocol(self) -> str:
        """All of it, for a cell."""
        return f"{self.told}; n = {self.n} attacked, clean errors and bounds on {self.bounded}, seed 0"

    def net(self, row: str, *, seed: int = 0) -> Net:
        """The network of a row of any of the tables.

        Raises:
            BadInput: the words name none.
        """
        objective, algorithm, epochs = "natural", None, self.epochs
        if row.startswith("7-step Linf"):
            threat = f"linf(eps={self.sizes[row.split()[-1]]:g})"
            objective = f"adversarial:threat={threat},attack=pgd(steps={self.at_steps},keep=last)"
        elif row.startswith("free m="):
            replays = int(row.partition("=")[2])
            algorithm = f"free:threat=linf(eps={self.sizes['8/255']:g}),replays={replays}"
            epochs = max(1, round(self.epochs / replays))
        elif row.startswith("noise "):
            objective = f"gaussian-noise:sigma={row.partition(' ')[2]}"
        elif row != UNDEFENDED:
            objective = _penalty(row)
        return Net(
            model=self.model,
            data=self.data,
            n=self.train,
            objective=objective,
            algorithm=algorithm,
            epochs=epochs,
            batch=self.batch,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            crop=self.crop,
            flip=self.crop > 0,
            cutout=self.cutout,
            seed=seed,
        )

    def attacked(self, workshop: Workshop, row: str, norm: str, *, seed: int = 0) -> Trial:
        return workshop.trial(self.net(row, seed=seed), WIDE[norm], n=self.n)

    def certified(self, workshop: Workshop, row: str, *, seed: int = 0) -> Trial:
        return workshop.trial(self.net(row, seed=seed), WIDE["l2"], n=self.bounded)


def _penalty(row: str) -> str:
    """The objective of such words as "l1 finite differences λ=1 h=0.1", "l2 λ=1", and of table B.4 "h=1e-2" and
    "double backprop", which are l1 with λ = 1. Where nothing is said, by finite differences with h = 0.01."""
    words = row.split()
    norm = words[0] if words[0] in ("l1", "l2") else "l1"
    values = dict(word.split("=") for word in words if "=" in word)
    if not values and "double" not in words:
        raise BadInput(f"There is no training {row!r} in the tables of gradient-regularization.")
    spec = f"gradient-penalty:norm={norm},strength={values.get('λ', '1')}"
    return f"{spec},by=double-backprop" if "double" in words else f"{spec},h={float(values.get('h', '0.01')):g}"


DIGITS = "digits 8×8 in place of CIFAR-10"
ATTACKS = {
    "linf": (
        "smallest-eps:attack=pgd(steps=20,score=margin),rounds=6",
        "boundary:queries=300,starts=20",
        "logbarrier:rounds=10,steps=25",
    ),
    "l2": (
        "smallest-eps:attack=pgd(steps=20,score=margin),rounds=6",
        "cw-l2:steps=50,search_steps=6,constant=1",
        "boundary:queries=300,starts=20",
        "logbarrier:rounds=10,steps=25",
    ),
}
FULL = {
    "linf": ("smallest-eps:attack=pgd(steps=40,score=margin)", "boundary:queries=2000", "logbarrier:steps=100"),
    "l2": (
        "smallest-eps:attack=pgd(steps=40,score=margin)",
        "cw-l2:constant=1",
        "boundary:queries=2000",
        "logbarrier:steps=100",
    ),
}
TINY = {
    "linf": ("smallest-eps:attack=pgd(steps=2),rounds=2", "logbarrier:rounds=1,steps=2,draws=2"),
    "l2": ("smallest-eps:attack=pgd(steps=2),rounds=2", "cw-l2:steps=2,search_steps=1,constant=10"),
}
PLACES = "steps:at=(0.3,0.6,0.8),factor=0.2"
CIFAR = {"2/255": 2 / 255, "8/255": 8 / 255}
SETTINGS = {
    "smoke": Setting(
        data="digits",
        train=100,
        n=10,
        bounded=20,
        model="small-conv:channels=2",
        epochs=2,
        batch=100,
        lr=0.05,
        schedule=PLACES,
        sizes={"2/255": 0.03, "8/255": 0.12},
        at_steps=1,
        attacks=TINY,
        seeds=(0,),
        sigmas=(0.5,),
        votes=500,
        smoothed=2,
        timed=4,
        told=f"{DIGITS}, 100 training images, two epochs, 2 channels: this only shows that it runs",
    ),
    "cpu": Setting(
        data="digits",
        train=None,
        n=100,
        bounded=500,
        model="small-conv:channels=16",
        epochs=40,
        batch=100,
        lr=0.05,
        schedule=PLACES,
        sizes={"2/255": 0.03, "8/255": 0.12},
        attacks=ATTACKS,
        seeds=(0, 1, 2),
        sigmas=(0.25, 0.5, 1.0),
        votes=2000,
        smoothed=60,
        timed=40,
        told=f"{DIGITS}, a net of two convolutions in place of ResNeXt-34, 40 epochs, Linf 0.03 and 0.12 for 2/255 and "
        "8/255",
    ),
    "gpu": Setting(
        data="cifar10",
        train=None,
        n=500,
        bounded=5000,
        model="resnext34",
        epochs=15,
        batch=128,
        lr=0.1,
        schedule=PLACES,
        weight_decay=5e-4,
        crop=4,
        cutout=16,
        sizes=CIFAR,
        attacks=FULL,
        seeds=(0,),
        sigmas=(0.25, 0.5, 1.0),
        votes=10_000,
        smoothed=200,
        timed=40,
        told="CIFAR-10, 15 epochs for 200",
    ),
    "paper": Setting(
        data="cifar10",
        train=None,
        n=1000,
        bounded=10_000,
        model="resnext34",
        epochs=200,
        batch=128,
        lr=0.1,
        schedule=PLACES,
        weight_decay=5e-4,
        crop=4,
        cutout=16,
        sizes=CIFAR,
        attacks={
            "linf": ("smallest-eps:attack=pgd(steps=100,score=margin)", "boundary:queries=10000", "logbarrier"),
            "l2": (
                "smallest-eps:attack=pgd(steps=100,score=margin)",
                "cw-l2:steps=1000",
                "boundary:queries=10000",
                "logbarrier",
            ),
        },
        seeds=(0,),
        sigmas=(0.12, 0.25, 0.5, 1.0),
        votes=100_000,
        smoothed=500,
        timed=40,
        told="the paper's own settings, as far as it and its released code say them",
    ),
}
