"""The networks and attacks of the SONet paper, by the words of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F

from verigrad.core.classifier import predict
from verigrad.core.threat import Threat
from verigrad.papers.result import Measured, Result, row_of
from verigrad.papers.sonet_settings import Setting
from verigrad.papers.table import Table
from verigrad.papers.workshop import Net, Trial, Workshop

# The paper's: 0.031 in steps of 0.003 under Linf, 0.5 in steps of 0.1 under L2.
STEPS = {"linf": 0.003 / 0.031, "l2": 0.1 / 0.5}
# What the paper's tables lack.
FROZEN, ALONE, STRONGEST = "frozen grid %", "batch of one %", "strongest attack %"
# How far an accuracy may lie from what is printed, in points.
BAND = 5.0
# Points: a gap that an attack with the right gradient closes, and what two shares of 100 images may differ by.
GAP, NO_GAP = 30.0, 10.0


def pgd(threat: Threat, steps: int, score: str = "cross_entropy") -> str:
    """PGD as the SONet code has it: no random start, the last iterate."""
    norm = str(threat).partition(":")[0]
    size = f"{threat.size * STEPS[norm]:.6g}"
    scored = "" if score == "cross_entropy" else f",score={score}"
    return f"pgd:steps={steps},step_size={size},random_start=false,keep=last{scored}"


def on_twin(attack: str, change: str) -> str:
    """An attack that climbs on a twin."""
    name, _, pairs = attack.partition(":")
    return f"on-twin:attack={name}({pairs}),change={change}"


def further(trial: Trial, *own: str, steps: int, ode: bool = True) -> dict[str, Measured | None]:
    """What the tables lack: PGD with the grid frozen, PGD whose gradient is that of each image alone, and what is left
    by these two, the table's own attacks and PGD on the margin together, with and without the grid.

    Args:
        own: the table's attacks on this net.
        steps: of all the others.
        ode: whether the net has a solver at all.
    """
    plain, margin = pgd(trial.threat, steps), pgd(trial.threat, steps, "margin")
    if not ode:
        return {STRONGEST: trial.surviving(*own, plain, margin)}
    frozen, alone = on_twin(plain, "frozen-grid"), on_twin(plain, "batch-of-one")
    return {
        FROZEN: trial.surviving(frozen),
        ALONE: trial.surviving(alone),
        STRONGEST: trial.surviving(*own, plain, frozen, alone, margin, on_twin(margin, "frozen-grid")),
    }


def net(at: Setting, name: str, channels: str, *, seed: int = 0) -> Net:
    """A model of tables 1 and 4."""
    model, _, weight = name.partition("-TRADES ")
    spec = {"SONet": "sonet", "SOBlock": "soblock", "ResNet10": "resnet10"}[model]
    objective = "natural"
    if weight:
        threat = f"linf(eps={at.linf})"
        objective = f"trades:threat={threat},beta={weight},steps={at.trades_steps}"
    blocks = f",blocks={at.blocks}" if spec == "sonet" else ""
    return trained(at, f"{spec}:channels={at.channels[channels]}{blocks}", objective=objective, seed=seed)


def with_solver(at: Setting, name: str, solver: str) -> Net:
    """A model of tables 2 and 3: SOBlock or ODENet, and "dopri5 0.1" or "rk4"."""
    method, _, tol = solver.partition(" ")
    method = {"adaptive-heun": "heun2"}.get(method, method)
    words = f"method={method},tol={tol}" if tol else f"method={method},steps=1"
    base = at.wide if name == "SOBlock" else at.odenet
    return trained(at, f"{base}{',' if ':' in base else ':'}{words}")


def trained(at: Setting, model: str, *, objective: str = "natural", seed: int = 0) -> Net:
    return Net(
        model=model,
        data=at.data,
        n=at.train,
        objective=objective,
        epochs=at.epochs,
        optimiser=at.optimiser,
        lr=at.lr,
        schedule=at.schedule,
        crop=at.crop,
        flip=at.flip,
        seed=seed,
    )


def cells(table: Table, row: tuple[str, ...], found: Mapping[str, Measured | None], at: Setting) -> Iterator[Result]:
    """The cells of one row, the paper's columns and ours."""
    return row_of(table, row, found, band=BAND, protocol=at.protocol, reason=at.why)


def value(found: Mapping[str, Measured | None], column: str) -> float:
    """What was measured in a column that must be there."""
    one = found[column]
    assert one is not None
    return one.value


def span(values: Sequence[float]) -> str:
    """Percentages in words: the lowest and the highest."""
    return f"{min(values):.0f} %" if min(values) == max(values) else f"{min(values):.0f} to {max(values):.0f} %"


def training_loss(workshop: Workshop, one: Net, *, n: int = 1000) -> float:
    """Mean cross-entropy on the first n training images, or on all if there are fewer: how saturated the net is."""
    images = workshop.images(one.data, "train", one.n)
    x, y = images.x[:n], images.y[:n]
    return float(F.cross_entropy(predict(workshop.net(one), x), y))
