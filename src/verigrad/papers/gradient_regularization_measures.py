"""What the tables of the gradient-regularization paper measure: nearest errors, bounds, and the time of training."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch
from scipy.special import bdtr

from verigrad import catalog
from verigrad.core.errors import VerigradError
from verigrad.core.seeds import seeded
from verigrad.papers.gradient_regularization_settings import UNDEFENDED, Setting
from verigrad.papers.result import Measured, Result, row_of
from verigrad.papers.table import Table
from verigrad.papers.workshop import Net, Trial, Workshop
from verigrad.training.running import Running, take_step
from verigrad.training.trainer import initialised

# The radii of table B.6, those of B.3 among them, and one below.
LADDER = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
# The plain reading of the paper, which does not say how v is drawn, and what finds more of ω (docs/math).
BALL, ASCENT = "sampler=ball,steps=10", "sampler=ascent"
# How far an error may lie from what is printed, in points; all else may by a fifth of that.
POINTS, SHARE, LEAST = 5.0, 0.2, 0.02
# Hours of the undefended net in the paper: ours are in these units.
UNIT = 2.06
TIMES = "training times are ratios of one step's on this machine, median of alternating steps, in units of the paper's "
TIMES += f"undefended net, {UNIT} h"


class Near(NamedTuple):
    """Of n attacked images how far the nearest error is, 0 where an image is one itself, infinite where none was found;
    and how often which attack was the one that found it."""

    distances: tuple[float, ...]
    finders: Counter[str]


def nearest(trial: Trial, attacks: Sequence[str]) -> Near:
    right = set(trial.attempt(attacks[0]).attempted)
    found = trial.nearest(*attacks)
    distances = tuple(found.get(i, (math.inf, ""))[0] if i in right else 0.0 for i in range(trial.n))
    return Near(distances, Counter(attack.partition(":")[0] for _, attack in found.values()))


def error_at(near: Near, eps: float) -> Measured:
    """Percent of images with an error at most eps away."""
    return Measured.share(sum(distance <= eps for distance in near.distances), len(near.distances))


def wrong(trial: Trial) -> Measured:
    """Percent of images that are classified wrongly as they are."""
    return Measured.share(trial.n - round(trial.natural().value * trial.n / 100), trial.n)


def mean(values: Sequence[float]) -> Measured:
    """The mean of those that are finite, with the normal 95 % interval of a mean.

    Raises:
        VerigradError: none is.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        raise VerigradError("No attack has found an error of any image, however far. Give the attacks more steps.")
    middle = math.fsum(known) / len(known)
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in known) / max(1, len(known) - 1))
    reach = 1.96 * deviation / math.sqrt(len(known))
    return Measured(middle, middle - reach, middle + reach, len(known))


def omega(norm: str, how: str, ladder: Sequence[float] = LADDER) -> str:
    return f"omega-bound:norm={norm},{how},ladder=({','.join(f'{eps:g}' for eps in ladder)})"


def radii(trial: Trial, certificate: str) -> tuple[float, ...]:
    """What a certificate says of each image, in their order."""
    said = {i: r for part in trial.certified(certificate) for i, r in zip(part["samples"], part["radius"], strict=True)}
    return tuple(said[i] for i in range(trial.n))


def facts(trial: Trial, certificate: str) -> dict[str, Any]:
    """What a certificate fitted to the images."""
    (part,) = trial.certified(certificate)
    return part["facts"]


def uncertified(found: Sequence[float], radius: float) -> Measured:
    """Percent of images whose radius is smaller."""
    return Measured.share(sum(one < radius for one in found), len(found))


def contradicted(found: Sequence[float], near: Near) -> Measured:
    """Percent of the attacked images, the first ones, with an error that is nearer than their radius."""
    both = list(zip(found, near.distances, strict=False))
    return Measured.share(sum(distance < radius for radius, distance in both), len(both))


def hours(workshop: Workshop, at: Setting, row: str) -> Measured | None:
    """Training time in the paper's unit, with an interval from order statistics; kept once measured. The undefended
    net's is that unit.

    Steps of this training and of the undefended net's alternate, so that a busy machine slows both; each pair is a
    ratio, and an epoch of `free` has as many batches but is one of fewer.
    """
    if row == UNDEFENDED:
        return None
    net = at.net(row)
    file = workshop.folder / "timings" / f"{net.name}.json"
    if not file.exists():
        workshop.tell(f"timing {row}")
        ratios = _ratios(workshop, net, at.net(UNDEFENDED), at.timed)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(ratios), encoding="utf-8")
    share = UNIT * net.epochs / at.epochs
    ratios = sorted(share * one for one in json.loads(file.read_text(encoding="utf-8")))
    # The widest ranks from both ends that hold the median with 95 %.
    skip = max((k for k in range(len(ratios) // 2) if 2 * bdtr(k - 1, len(ratios), 0.5) <= 0.05), default=0)
    return Measured(median(ratios), ratios[max(0, skip - 1)], ratios[-max(1, skip)], len(ratios))


def _ratios(workshop: Workshop, net: Net, plain: Net, steps: int) -> list[float]:
    """Time of a step of one over that of the other; the first tenth warms up."""
    one, other = (_steps(workshop, wanted, steps) for wanted in (net, plain))
    pairs = [(next(one), next(other)) for _ in range(steps + steps // 10 + 1)]
    return [a / b for a, b in pairs[steps // 10 + 1 :]]


def _steps(workshop: Workshop, net: Net, steps: int) -> Iterator[float]:
    """Seconds of one training step after another, from fresh weights."""
    images = workshop.images(net.data, "train", net.n)
    _, channels, _, size = images.x.shape
    spec = catalog.complete(net.model, in_channels=channels, classes=images.classes, size=size)
    model = initialised(lambda: catalog.build("model", spec), net.seed).to(workshop.device)
    running = Running(model, net.recipe, steps=2 * steps)
    x, y = (part[: net.batch].to(workshop.device) for part in (images.x, images.y))
    for step in range(2 * steps):
        running.begin(step, net.lr)
        generator = seeded(net.seed, f"timing/{step}", range(len(x)), device=workshop.device)
        _wait()
        begun = time.perf_counter()
        take_step(running, net.method, x, y, generator)
        _wait()
        yield time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cells(table: Table, row: tuple[str, ...], found: Mapping[str, Measured | None], at: Setting) -> Iterator[Result]:
    """A row's cells, each with the band of its unit."""
    for column, ours in found.items():
        printed = table.printed(*row, column=column) if column in table.columns else None
        band = POINTS if column.endswith("%") else max(LEAST, SHARE * printed if isinstance(printed, float) else 0.0)
        told = f"{at.protocol}; {TIMES}" if column == "hours" else at.protocol
        why = f"the unit of the other rows is its {UNIT} h" if ours is None else at.told
        yield from row_of(table, row, {column: ours}, band=band, protocol=told, reason=why)
