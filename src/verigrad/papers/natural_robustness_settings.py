"""The sizes at which the tables and figures of the natural-robustness paper are redone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verigrad.core.threat import Linf
from verigrad.papers.workshop import Net, Trial, Workshop

# How far an accuracy may lie from what is printed, in points.
BAND = 5.0
HALVES = ("MNIST", "CIFAR-10")
MODELS = ("ResNet50", "neural ODE")


@dataclass(frozen=True, kw_only=True)
class Half:
    """One scale of what the paper does on MNIST, or on CIFAR-10.

    Args:
        data: with images in place of the paper's where `told` says so.
        train, n: images to train on (None: all) and to attack; `walked`: to attack by Boundary.
        epochs, batch, lr, schedule: of Adam; the epochs by the models' names.
        models: specs by the paper's names.
        steps: of PGD; `diverse`: of DI²-FGSM; `queries`: of Boundary.
        told: what differs from the paper.
    """

    data: str
    train: int | None
    n: int
    walked: int
    epochs: Mapping[str, int]
    batch: int
    lr: float
    schedule: str
    models: Mapping[str, str]
    steps: int
    diverse: int
    queries: int
    told: str

    def net(self, name: str) -> Net:
        return Net(
            model=self.models[name],
            data=self.data,
            n=self.train,
            epochs=self.epochs[name],
            batch=self.batch,
            lr=self.lr,
            optimiser="adam",
            schedule=self.schedule,
        )

    def trial(self, workshop: Workshop, name: str, eps: float, *, walked: bool = False) -> Trial:
        return workshop.trial(self.net(name), Linf(eps=eps), n=self.walked if walked else self.n)

    def strongest(self, *known: str) -> tuple[str, ...]:
        """One step, the margin with the grid frozen and through the solver's steps, and those already made: the best
        of them counts."""
        inner = f"pgd(steps={max(self.steps, 2)},score=margin)"
        margin = f"pgd:steps={self.steps},score=margin"
        return "fgsm", f"on-twin:attack={inner},change=frozen-grid", margin, *known


def half(scale: str, name: str) -> Half:
    """The setting of one scale for MNIST or CIFAR-10."""
    return {"smoke": _smoke, "cpu": _cpu, "gpu": _gpu, "paper": _paper}[scale](name)


def _smoke(name: str) -> Half:
    ode = {"MNIST": "neural-ode-mnist", "CIFAR-10": "neural-ode-cifar"}[name]
    return Half(
        data="digits",
        train=100,
        n=6,
        walked=3,
        epochs=dict.fromkeys(MODELS, 1),
        batch=100,
        lr=1e-3,
        schedule="steps",
        models={"ResNet50": "resnet50:channels=4", "neural ODE": f"{ode}:channels=8,halvings=0,t1=10,tol=0.1"},
        steps=2,
        diverse=2,
        queries=12,
        told=f"digits 8×8 in place of {name}, 100 training images, one epoch: this only shows that it runs",
    )


def _cpu(name: str) -> Half:
    ode = {"MNIST": "neural-ode-mnist", "CIFAR-10": "neural-ode-cifar"}[name]
    return Half(
        data="digits",
        train=None,
        n=30,
        walked=6,
        epochs={"ResNet50": 15, "neural ODE": 4},
        batch=32,
        lr=3e-3,
        schedule="one-cycle",
        # GroupNorm has 32 groups: in fewer than 64 channels each is normalised alone, and the mean tells nothing.
        models={"ResNet50": "resnet50:channels=4", "neural ODE": f"{ode}:channels=64,halvings=1,tol=0.01"},
        steps=40,
        diverse=10,
        queries=400,
        told=(
            f"digits 8×8 in place of {name}; ODE of 64 channels with one halving at tolerance 0.01, 4 epochs; "
            "ResNet50 of 4 channels, 15 epochs; n = 30 (Boundary: 6 images, 400 queries; DI²-FGSM: 10 steps), seed 0"
        ),
    )


def _gpu(name: str) -> Half:
    return _full(name, epochs=20, n=1000, told="20 epochs, n = 1,000 (Boundary: 100), seed 0")


def _paper(name: str) -> Half:
    return _full(name, epochs={"MNIST": 100, "CIFAR-10": 200}[name], n=10000, told="the paper's own settings")


def _full(name: str, *, epochs: int, n: int, told: str) -> Half:
    mnist = name == "MNIST"
    return Half(
        data="mnist" if mnist else "cifar10",
        train=None,
        n=n,
        walked=n // 10,
        epochs=dict.fromkeys(MODELS, epochs),
        batch=32,
        lr=1e-3 if mnist else 1e-4,
        schedule=f"steps:at={_halvings(epochs)},factor=0.5",
        models={
            "ResNet50": "resnet50:in_channels=1" if mnist else "resnet50",
            "neural ODE": "neural-ode-mnist" if mnist else "neural-ode-cifar",
        },
        steps=40,
        diverse=20,
        queries=1000,
        told=told,
    )


def _halvings(epochs: int) -> str:
    """Every 50 epochs, as table A1 has it."""
    return f"({','.join(f'{50 * k / epochs:g}' for k in range(1, (epochs - 1) // 50 + 1))})"
