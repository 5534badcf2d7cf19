"""The sizes at which the tables of the SONet paper are redone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One scale. `channels`, `steps`, `further_steps` and `iterations` are by the paper's own numbers.

    Args:
        train: how many training images; None for all. n: how many test images are attacked, in batches of 100.
        steps: of PGD in each kind of row; further_steps: of PGD in the columns that the paper lacks.
        iterations: of PGD, by those of table 3.
        wide, odenet: the models of table 2.
        seeds: of the nets whose gradients are intervened on. curve: the eps of their accuracy curve.
        theorem: the nets in whose blocks theorem 3.1 is measured, and how many images go through them.
        told: what differs from the paper besides the numbers that `protocol` adds.
        why: why accuracies may differ from the paper's; "" where only a band should part them.
    """

    data: str
    train: int | None
    n: int
    epochs: int
    optimiser: str
    lr: float
    schedule: str
    crop: int
    flip: bool
    linf: float
    l2: float
    channels: Mapping[str, int]
    steps: Mapping[str, int]
    further_steps: Mapping[str, int]
    iterations: Mapping[str, int]
    trades_steps: int
    blocks: str
    wide: str
    odenet: str
    cw: str
    spsa: str
    seeds: tuple[int, ...]
    curve: tuple[float, ...]
    theorem: tuple[tuple[str, ...], int]
    told: str
    why: str

    @property
    def protocol(self) -> str:
        images = "" if self.train is None else f"{self.train} training images, "
        epochs = "one epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{self.told}; {images}{epochs} of {self.optimiser}, n = {self.n}, seed 0"


OTHER = "another data set, smaller nets and a larger ε: orderings, gaps and ratios compare, single numbers do not"
DIGITS = "digits 8×8 in place of CIFAR-10, Linf 0.12 for 0.031, L2 1 for 0.5"
CIFAR = {
    "data": "cifar10",
    "train": None,
    "optimiser": "sgd",
    "lr": 0.01,
    "crop": 4,
    "flip": True,
    "linf": 0.031,
    "l2": 0.5,
    "channels": {"32": 32, "64": 64},
    "trades_steps": 10,
    "blocks": "2-2-2-2",
    "wide": "soblock-wide",
    "odenet": "odenet",
    "cw": "cw-linf",
    "spsa": "spsa",
    "curve": (0.004, 0.008, 0.016, 0.031),
    "theorem": (("skew-conv:channels=4", "skew-conv:channels=4,gamma=0.1"), 20),
}
SETTINGS = {
    "smoke": Setting(
        data="digits",
        train=50,
        n=5,
        epochs=1,
        optimiser="adam",
        lr=0.01,
        schedule="one-cycle",
        crop=0,
        flip=False,
        linf=0.12,
        l2=1.0,
        channels={"32": 2, "64": 2},
        steps={"PGD-20": 1, "PGD-1000": 2},
        further_steps={"PGD-20": 1, "PGD-1000": 1},
        iterations={"1": 1, "100": 2, "1000": 3},
        trades_steps=1,
        blocks="1-1-1-1",
        wide="soblock:channels=2",
        odenet="odenet:channels=2,blocks=1",
        cw="cw-linf:steps=2",
        spsa="spsa:steps=1,samples=2",
        seeds=(0,),
        curve=(0.06, 0.12),
        theorem=(("skew-conv:channels=2",), 2),
        told=f"{DIGITS}, 2 channels, 1 and 2 steps: this only shows that it runs",
        why=OTHER,
    ),
    "cpu": Setting(
        data="digits",
        train=None,
        n=100,
        epochs=10,
        optimiser="adam",
        lr=0.01,
        schedule="one-cycle",
        crop=0,
        flip=False,
        linf=0.12,
        l2=1.0,
        channels={"32": 4, "64": 8},
        steps={"PGD-20": 20, "PGD-1000": 50},
        further_steps={"PGD-20": 20, "PGD-1000": 20},
        iterations={"1": 1, "100": 10, "1000": 50},
        trades_steps=5,
        blocks="1-1-1-1",
        wide="soblock:channels=4",
        odenet="odenet:channels=4,blocks=1",
        # Their steps, 0.005 and 0.01 for an ε of 0.031, in proportion to ε, as those of PGD are.
        cw="cw-linf:steps=40,step_size=0.0194",
        spsa="spsa:steps=20,samples=8,step_size=0.0387",
        seeds=(0, 1, 2),
        curve=(0.03, 0.06, 0.09, 0.12, 0.16),
        theorem=(("skew-conv:channels=4", "skew-conv:channels=4,gamma=0.1"), 20),
        told=f"{DIGITS}, 4 and 8 channels for 32 and 64 (4 in table 2), 50 steps of PGD for 1,000 and 20 in the "
        "further columns, 40 of CW-Linf for 100, 8 samples of SPSA for 32, TRADES with 5 steps",
        why=OTHER,
    ),
    "gpu": Setting(
        **CIFAR,  # pyright: ignore[reportArgumentType]
        n=1000,
        epochs=30,
        schedule="steps:at=(0.43,0.86)",
        steps={"PGD-20": 20, "PGD-1000": 200},
        further_steps={"PGD-20": 20, "PGD-1000": 20},
        iterations={"1": 1, "100": 100, "1000": 1000},
        seeds=(0, 1, 2),
        told="CIFAR-10 (JPEG where that is the copy), 200 steps of PGD for 1,000 and 20 in the further columns",
        why="30 epochs for 350: logits are less saturated, and less is hidden",
    ),
    "paper": Setting(
        **CIFAR,  # pyright: ignore[reportArgumentType]
        n=10000,
        epochs=350,
        schedule="steps:at=(0.42857,0.85714)",
        steps={"PGD-20": 20, "PGD-1000": 1000},
        further_steps={"PGD-20": 20, "PGD-1000": 1000},
        iterations={"1": 1, "100": 100, "1000": 1000},
        seeds=(0, 1, 2),
        told="the paper's own settings",
        why="",
    ),
}
