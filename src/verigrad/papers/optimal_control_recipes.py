"""How the table, the figure and the cost of the optimal-control paper are redone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.threat import L0, Linf
from verigrad.papers.optimal_control import COST, TABLE1
from verigrad.papers.optimal_control_settings import ADVERSARIAL, EPS, SETTINGS, THEIRS, VANILLA, Setting
from verigrad.papers.recipe import Recipe, Redo, cost_by_scale
from verigrad.papers.result import Finding, Measured, Result, Series, compared, row_of
from verigrad.papers.workshop import Net, Workshop
from verigrad.training.trainer import initialised, train

FIGURE1 = "optimal-control/figure1"
# How far an accuracy, in points, and the ratio of times may lie from what is printed.
BAND, RATIO_BAND = 5.0, 5.0
# The paper allows C&W any number of pixels; the further row stops at this share of them.
FEW = 0.05
# Why theirs keeps less here.
SMALL_MARGINS = (
    "under its constraint and without norms the net fits slowly, and what it has not fitted lies near an error"
)
# What float32 adds to a norm that is clipped at one.
ROUNDING = 1e-4


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Three trainings under the paper's attacks, and under the strongest here, which the paper lacks."""
    at = SETTINGS[scale]
    columns: dict[str, dict[str, Measured]] = {column: _column(workshop, at, column) for column in TABLE1.columns}
    for (attack,) in TABLE1.rows():
        found: dict[str, Measured | None] = {column: rows[attack] for column, rows in columns.items()}
        yield from row_of(TABLE1, (attack,), found, band=BAND, protocol=at.told)
    printed = {row for (row,) in TABLE1.rows()}
    for attack in (row for row in columns[VANILLA] if row not in printed):
        for column, rows in columns.items():
            yield compared(TABLE1.id, (attack,), column, None, rows[attack], band=BAND, protocol=at.told)
    for attack in ("FGSM", "PGD-10", "strongest"):
        vanilla, adversarial, theirs = (columns[column][attack].value for column in TABLE1.columns)
        told = f"vanilla {vanilla:.1f} %, adversarial training {adversarial:.1f} %, theirs {theirs:.1f} %"
        under = "Under the strongest attack" if attack == "strongest" else f"Under {attack}"
        yield Finding(
            TABLE1.id, f"{under} theirs keeps more than vanilla training", theirs > vanilla, told, SMALL_MARGINS
        )
        claim = f"{under} adversarial training keeps more than theirs"
        yield Finding(TABLE1.id, claim, adversarial > theirs, told)


def _column(workshop: Workshop, at: Setting, column: str) -> dict[str, Measured]:
    """All rows of one net."""
    net = at.net(column)
    trial = workshop.trial(net, Linf(eps=EPS), n=at.n)
    pgd = f"pgd:steps={at.steps},keep=last"
    sides = trial.images.x.shape[-2:]
    pixels = math.prod(sides)
    walked = workshop.trial(net, L0(pixels=pixels), n=at.walked)
    few = max(1, round(FEW * pixels))
    clean, near = walked.natural(), walked.distances(at.walk)
    right = round(clean.value * clean.n / 100)
    return {
        "none": trial.natural(),
        "FGSM": trial.left("fgsm"),
        "PGD-10": trial.left(pgd),
        "C&W": Measured.share(right - len(near), clean.n),
        f"C&W, {FEW:.0%} of the pixels": Measured.share(right - sum(d <= few for d in near), clean.n),
        "strongest": trial.left("fgsm", pgd, f"pgd:steps={4 * at.steps},score=margin"),
    }


def figure1(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """The last fully connected layer. It is not square, so it has no eigenvalues: drawn are those of the layer padded
    with zeros to a square, which are those of its first rows and columns, and its singular values."""
    at = SETTINGS[scale]
    found: dict[str, tuple[Tensor, Tensor]] = {}
    circle = torch.linspace(0, 2 * math.pi, 97, dtype=torch.float64)
    axes = ("real part", "imaginary part")
    yield Series(FIGURE1, "eigenvalues", "unit circle", _floats(circle.cos()), _floats(circle.sin()), *axes)
    for column in (THEIRS, VANILLA):
        name = column.removesuffix(" %")
        model = workshop.net(at.net(column))
        theta = _last_linear(model).weight.detach().double().cpu()
        square = min(theta.shape)
        eigenvalues, sizes = torch.linalg.eigvals(theta[:square, :square]), torch.linalg.svdvals(theta)
        found[column] = eigenvalues.abs(), sizes
        yield Series(
            FIGURE1, "eigenvalues", name, _floats(eigenvalues.real), _floats(eigenvalues.imag), *axes, points=True
        )
        places = tuple(float(i + 1) for i in range(len(sizes)))
        yield Series(FIGURE1, "singular values", name, places, _floats(sizes), "place", "singular value", points=True)
        for what, values in (("spectral radius, padded", eigenvalues.abs()), ("largest singular value", sizes)):
            ours = Measured(float(values.max()), None, None, 1)
            yield compared(FIGURE1, (name,), what, None, ours, band=0.0, protocol=at.told)
    (radius, size), (free, free_size) = ((float(a.max()), float(b.max())) for a, b in found.values())
    yield Finding(
        FIGURE1,
        "The eigenvalues of the layer that their method trains are bounded by 1",
        max(radius, size) <= 1 + ROUNDING,
        f"largest eigenvalue {radius:.4f}, largest singular value {size:.4f}",
    )
    yield Finding(
        FIGURE1,
        "Those of the vanilla layer are not bounded by 1",
        free > 1.0,
        f"largest eigenvalue {free:.3f}, largest singular value {free_size:.3f}",
        "eigenvalues of a layer between two spaces are those of a part of it; the constraint bounds its norm",
    )


def _last_linear(model: nn.Module) -> nn.Linear:
    return [part for part in model.modules() if isinstance(part, nn.Linear)][-1]


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.tolist())


def cost(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Seconds of one epoch of each training, the least of some; processor time where there is no GPU."""
    at = SETTINGS[scale]
    images, repeats = at.timed
    told = f"{at.told}; one epoch on {images} images, the least of {repeats}, on {workshop.device.type}"
    seconds = {column: min(_epoch(workshop, at, column) for _ in range(repeats)) for column in TABLE1.columns}
    for column, value in seconds.items():
        row = (column.removesuffix(" %"),)
        yield compared(COST.id, row, "seconds", None, Measured(value, None, None, images), band=0.0, protocol=told)
    ratio = seconds[ADVERSARIAL] / seconds[THEIRS]
    (row,) = COST.rows()
    found: dict[str, Measured | None] = {"times": Measured(ratio, None, None, images)}
    yield from row_of(COST, row, found, band=RATIO_BAND, protocol=told)
    over = seconds[THEIRS] / seconds[VANILLA]
    yield Finding(
        COST.id,
        "Adversarial training takes about ten times as long as theirs (5 to 15)",
        5.0 <= ratio <= 15.0,
        f"{ratio:.1f} times; theirs takes {over:.2f} times as long as vanilla training",
        "in a narrow net the constraint costs more than the passes" if over > 1.5 else "",
    )


def _epoch(workshop: Workshop, at: Setting, column: str) -> float:
    """Seconds of one epoch of a fresh net, which is not kept."""
    net = at.net(column)
    images = workshop.images(net.data, "train", at.timed[0])
    _, channels, _, size = images.x.shape
    spec = catalog.complete(net.model, in_channels=channels, classes=images.classes, size=size)
    model = initialised(lambda: catalog.build("model", spec), net.seed).to(workshop.device)
    cuda = workshop.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    begun = clock()
    train(model, images.x, images.y, net.method, _one_epoch(net).recipe)
    if cuda:
        torch.cuda.synchronize()
    return clock() - begun


def _one_epoch(net: Net) -> Net:
    return Net(
        model=net.model,
        data=net.data,
        objective=net.objective,
        algorithm=net.algorithm,
        epochs=1,
        batch=net.batch,
        lr=net.lr,
    )


def _recipe(id: str, title: str, redo: Redo, cpu: str) -> Recipe:
    return Recipe(
        id=id, title=title, redo=redo, cost=cost_by_scale(cpu), needs={"gpu": "CIFAR-10", "paper": "CIFAR-10"}
    )


RECIPES = (
    _recipe(TABLE1.id, "stable training under FGSM, PGD-10 and C&W in L0", table1, "1 min"),
    _recipe(FIGURE1, "eigenvalues of the last fully connected layer", figure1, "seconds"),
    _recipe(COST.id, "time of adversarial training beside theirs", cost, "seconds"),
)
