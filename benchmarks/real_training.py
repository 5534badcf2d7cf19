"""Every way of training on real images: clean accuracy, PGD-20 accuracy and time, side by side.

A small net (two strided convolutions of 16 and 32 channels and two linear layers, as in Wong & Kolter 2018) is trained
by each method on the first 10,000 training images of MNIST and of CIFAR-10, and judged on test images: clean on all of
them, and under PGD-20 (a random start, steps of eps / 8, cross-entropy, the first error kept) on the first 1,000, with
the exact 95 % interval (Clopper & Pearson). The last weights are judged: no checkpoint is picked, no number was tuned.

Eight epochs of SGD (batch 100, momentum 0.9, weight decay 5e-4, one cycle up to 0.05). Free has 8 / m epochs, since it
makes m updates of a batch. YOPO has the released code's share of PGD's epochs, 36 of 105 on CIFAR-10 and 40 of 56 on
MNIST, and 1 / m of the rate, since its step is the sum of m gradients. The rate of successive approximations is that
of its layer problems, 1 / (2(α + β)), with the optimiser's momentum and the paper's α = 0.001.

    python benchmarks/real_training.py --mnist DIR --cifar10 DIR    rows that real_training.json has are not run again
    python benchmarks/real_training.py --draw                       the tables of docs/training.md, from that file

Seconds are process CPU seconds of the training on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from verigrad import catalog
from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import predict
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.images import Images
from verigrad.data.load import load_data
from verigrad.ledger.statistics import clopper_pearson
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import OneCycle
from verigrad.training.trainer import initialised, train

HERE = Path(__file__).resolve().parent
STORE, PAGE = HERE / "real_training.json", HERE.parent / "docs" / "training.md"
BEGIN, END = "<!-- drawn by benchmarks/real_training.py -->\n", "<!-- end of what is drawn -->\n"
EPOCHS, BATCH, LR, SEED = 8, 100, 0.05, 0
TRAINED_ON, ATTACKED = 10_000, 1_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One data set: its threat as a spec's text, the noise, and YOPO's share of the epochs in its released code."""

    title: str
    eps: str
    sigma: float
    yopo: float


SETTINGS = {
    "mnist": Setting(title="MNIST", eps="0.2", sigma=0.25, yopo=40 / 56),
    "cifar10": Setting(title="CIFAR-10 (JPEG)", eps="8/255", sigma=0.12, yopo=36 / 105),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row."""

    data: str
    name: str
    kind: str
    spec: str
    epochs: int
    lr: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of it; right and robust are counts of tested and attacked images."""

    data: str
    name: str
    spec: str
    epochs: int
    lr: float
    right: int
    tested: int
    robust: int
    attacked: int
    train_loss: float
    seconds: float
    finished: str
    machine: str


def trials(data: str) -> Iterator[Trial]:
    """The rows of one data set, the cheap ones first."""
    setting = SETTINGS[data]
    threat = f"threat=linf(eps={setting.eps})"

    def objective(name: str, spec: str) -> Trial:
        return Trial(data=data, name=name, kind="objective", spec=spec, epochs=EPOCHS, lr=LR)

    yield objective("natural", "natural")
    yield objective(f"Gaussian noise, σ = {setting.sigma}", f"gaussian-noise:sigma={setting.sigma}")
    yield Trial(
        data=data, name="free, m = 4", kind="algorithm", spec=f"free:{threat},replays=4", epochs=EPOCHS // 4, lr=LR
    )
    yield objective("FGSM, random start", f"fgsm-adversarial:{threat}")
    yield Trial(
        data=data,
        name="YOPO-5-3",
        kind="algorithm",
        spec=f"yopo:{threat}",
        epochs=round(EPOCHS * setting.yopo),
        lr=LR / 5,
    )
    if "successive-approximations" in {entry.name for entry in catalog.entries("algorithm")}:
        yield Trial(
            data=data,
            name="successive approximations, momentum 0.9",
            kind="algorithm",
            spec="successive-approximations:momentum=0.9",
            epochs=EPOCHS,
            lr=LR,
        )
    yield objective("gradient penalty l2, finite differences, λ = 1", "gradient-penalty:h=0.01")
    yield objective("gradient penalty l1, finite differences, λ = 1", "gradient-penalty:norm=l1,h=0.1")
    yield objective("gradient penalty l2, double backprop, λ = 1", "gradient-penalty:by=double-backprop")
    yield objective("PGD-7", f"adversarial:{threat}")
    yield objective("TRADES-10, β = 6", f"trades:{threat},beta=6")
    yield objective("TRADES-10, β = 1", f"trades:{threat},beta=1")


def net(x: torch.Tensor) -> nn.Module:
    """The small net of Wong & Kolter 2018 (1711.00851), without normalisation, for images of this shape."""
    _, channels, _, size = x.shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (size // 4) ** 2, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def run(trial: Trial, images: Images, test: Images) -> Row:
    """Trains and judges one net."""
    model = initialised(lambda: net(images.x), SEED)
    recipe = Recipe(epochs=trial.epochs, batch=BATCH, lr=trial.lr, weight_decay=5e-4, schedule=OneCycle(), seed=SEED)
    start = time.process_time()
    trained = train(model, images.x, images.y, catalog.build(trial.kind, trial.spec), recipe)
    spent = time.process_time() - start
    right = int((predict(model, test.x, batch=500).argmax(1) == test.y).sum())
    x, y = test.x[:ATTACKED], test.y[:ATTACKED]
    threat = Linf(eps=catalog.build("threat", f"linf:eps={SETTINGS[trial.data].eps}").eps)
    broken = PGD(steps=20)(model, x, y, threat, generator=seeded(SEED, "pgd-20", range(len(x)))).broken
    return Row(
        **{name: value for name, value in asdict(trial).items() if name != "kind"},
        right=right,
        tested=len(test),
        robust=int((~broken).sum()),
        attacked=len(x),
        train_loss=trained.history[-1].parts["cross_entropy"],
        seconds=spent,
        finished=date.today().isoformat(),
        machine=f"{os.cpu_count()}-core {platform.machine()} CPU, 1 thread, torch {torch.__version__}",
    )


def stored() -> list[dict[str, Any]]:
    return json.loads(STORE.read_text())["rows"] if STORE.exists() else []


def keep(row: Row) -> None:
    """Adds a row to the file, which is replaced as a whole."""
    protocol = {"epochs": EPOCHS, "batch": BATCH, "lr": LR, "seed": SEED, "images": TRAINED_ON}
    draft = STORE.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"protocol": protocol, "rows": [*stored(), asdict(row)]}, indent=1) + "\n")
    draft.replace(STORE)


def table(data: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of one data set's table."""
    setting = SETTINGS[data]
    found = {row["name"]: row for row in rows if row["data"] == data}
    shown = [found[trial.name] for trial in trials(data) if trial.name in found]
    if not shown:
        return
    yield (
        f"**{setting.title}**, Linf {setting.eps}; clean accuracy on {shown[0]['tested']} test images, PGD-20 accuracy "
        f"on the first {shown[0]['attacked']} with its 95 % interval, CPU seconds of the training; "
        f"{shown[0]['machine']}, {max(row['finished'] for row in shown)}."
    )
    yield ""
    yield "| method | epochs | clean, % | PGD-20, % | 95 % interval | CPU s |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in shown:
        low, high = clopper_pearson(row["robust"], row["attacked"])
        yield (
            f"| {row['name']} | {row['epochs']} | {100 * row['right'] / row['tested']:.1f} | "
            f"{100 * row['robust'] / row['attacked']:.1f} | {100 * low:.1f} to {100 * high:.1f} | "
            f"{row['seconds']:.0f} |"
        )
    yield ""


def draw() -> None:
    """Puts the tables between their two marks in the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [line for data in SETTINGS for line in table(data, stored())]
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder of the IDX files")
    parser.add_argument("--cifar10", help="folder of the binary version")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--draw", action="store_true", help="draw the page and nothing else")
    chosen = parser.parse_args()
    if chosen.draw:
        draw()
        return
    torch.set_num_threads(1)
    refs = {data: f"{data}:{folder}" for data in SETTINGS if (folder := getattr(chosen, data))}
    due = [trial for pair in zip(*map(trials, refs), strict=True) for trial in pair]
    due = [trial for trial in due if chosen.only in trial.name]
    parts = {data: (load_data(ref, "train", n=TRAINED_ON), load_data(ref, "test")) for data, ref in refs.items() if due}
    for trial in due:
        if (trial.data, trial.name) in {(row["data"], row["name"]) for row in stored()}:
            continue
        row = run(trial, *parts[trial.data])
        keep(row)
        Console().print_json(data=asdict(row))


if __name__ == "__main__":
    main()
