"""How figure 1 of the natural-robustness paper is redone: ResNet56 with eleven step sizes. It prints no numbers: what
the text says of it is what can be compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from verigrad.core.threat import Linf
from verigrad.papers.natural_robustness_settings import BAND
from verigrad.papers.result import Finding, Result, Series, compared
from verigrad.papers.workshop import Net, Workshop

FIGURE1 = "natural-robustness/figure1"
# ResNet56 is trained with each of these steps, and attacked at each of these sizes.
STEPS = tuple(10.0**-power for power in range(11))
SIZES = (0.1, 0.3, 0.5)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One scale of figure 1. `net` and `maker` are models but for h; `at` are the places of the steps."""

    data: str
    train: int | None
    n: int
    epochs: int
    batch: int
    lr: float
    at: tuple[float, ...]
    net: str
    maker: str
    weight_decay: float
    crop: int
    told: str

    def stepped(self, h: float) -> Net:
        """ResNet56 with a step size."""
        return self.trained(f"{self.net}{',' if ':' in self.net else ':'}h={h:g}")

    def trained(self, model: str) -> Net:
        places = ",".join(f"{place:g}" for place in self.at)
        return Net(
            model=model,
            data=self.data,
            n=self.train,
            epochs=self.epochs,
            batch=self.batch,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=f"steps:at=({places})" if self.at else "one-cycle",
            crop=self.crop,
            flip=self.crop > 0,
        )


DIGITS = "digits 8×8 in place of CIFAR-10"
SWEEPS = {
    "smoke": Sweep(
        data="digits",
        train=100,
        n=10,
        epochs=1,
        batch=100,
        lr=0.1,
        at=(),
        net="resnet56:channels=1",
        maker="resnet8:channels=2",
        weight_decay=0.0,
        crop=0,
        told=f"{DIGITS}, 100 training images, one epoch, 1 channel: this only shows that it runs",
    ),
    "cpu": Sweep(
        data="digits",
        train=None,
        n=100,
        epochs=6,
        batch=50,
        lr=0.1,
        at=(),
        net="resnet56:channels=4",
        maker="resnet8:channels=4",
        weight_decay=0.0,
        crop=0,
        told=f"{DIGITS}, 6 epochs, 4 channels for 16, n = 100, seed 0",
    ),
    "gpu": Sweep(
        data="cifar10",
        train=None,
        n=1000,
        epochs=20,
        batch=128,
        lr=0.1,
        at=(),
        net="resnet56",
        maker="resnet8",
        weight_decay=1e-4,
        crop=4,
        told="20 epochs for 164, n = 1,000, seed 0",
    ),
    # He et al. 2015, section 4.2: 64,000 batches of 128, the rate cut at 32,000 and 48,000.
    "paper": Sweep(
        data="cifar10",
        train=None,
        n=10000,
        epochs=164,
        batch=128,
        lr=0.1,
        at=(0.5, 0.75),
        net="resnet56",
        maker="resnet8",
        weight_decay=1e-4,
        crop=4,
        told="the paper's own settings",
    ),
}


def figure1(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """ResNet56 with a step size h, on images that FGSM changed on a net of three blocks."""
    at = SWEEPS[scale]
    maker = at.trained(at.maker)
    workshop.net(maker)
    attack = f'transfer:attack=fgsm,source="{workshop.folder / "nets" / maker.name}"'
    columns = ("clean %", *(f"FGSM {size:g} %" for size in SIZES))
    found: dict[str, list[float]] = {column: [] for column in columns}
    for h in STEPS:
        net = at.stepped(h)
        trials = [workshop.trial(net, Linf(eps=size), n=at.n) for size in SIZES]
        for column, ours in zip(columns, (trials[0].natural(), *(one.left(attack) for one in trials)), strict=True):
            found[column].append(ours.value)
            yield compared(FIGURE1, (f"h = {h:g}",), column, None, ours, band=BAND, protocol=at.told)
    exponents = tuple(math.log10(h) for h in STEPS)
    for column, values in found.items():
        yield Series(
            FIGURE1, "ResNet56", column.removesuffix(" %"), exponents, tuple(values), "log10 of h", "accuracy %"
        )
    yield from _steps_claims(found, columns)


def _steps_claims(found: Mapping[str, list[float]], columns: tuple[str, ...]) -> Iterator[Finding]:
    """Section 4.1: what h = 0.1 to 0.001 and what h = 1e-8 to 1e-10 do."""
    clean = found[columns[0]]
    for column in columns[1:]:
        first, small = found[column][0], found[column][1:4]
        yield Finding(
            FIGURE1,
            f"Under {column.removesuffix(' %')} no h of 0.1, 0.01 and 0.001 is clearly more robust than h = 1",
            max(small) - first <= 10.0,
            f"h = 1 leaves {first:.1f} %, the three {', '.join(f'{value:.1f}' for value in small)} %",
        )
    yield Finding(
        FIGURE1,
        "With h = 1e-8, 1e-9 and 1e-10 clean accuracy is considerably lower than with h = 1",
        max(clean[8:]) <= clean[0] - 10.0,
        f"from h = 1 to 1e-10: {', '.join(f'{value:.0f}' for value in clean)} %",
    )
