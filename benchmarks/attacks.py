"""What an attack costs beyond the passes that it cannot do without.

The floor is the bare cost of `steps` forwards with an input gradient (`autograd.grad`, weights frozen) on the whole
batch. Attack and floor run in turn, five times or more; each figure is the median of the rounds' ratios of process CPU
seconds on one thread, so that other work on the machine does not enter. Two classifiers:

- *none breaks*: a small residual network on 3×32×32 with random weights, labelled by its own predictions, eps so small
  that no prediction changes. Every sample goes through every step: what is above 1 is overhead, and the final pass.
- *brittle*: a conv net trained on the digits, at an eps where nearly everything breaks. What is below 1 was saved by
  taking broken samples out of the batch.

    python benchmarks/attacks.py            writes attacks.json and attacks.md beside this file
    python benchmarks/attacks.py --quick    one round, nothing written
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.attacks.carlini_wagner import CarliniWagnerLinf
from verigrad.attacks.pgd import PGD
from verigrad.attacks.spsa import SPSA
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf, Threat

BATCH = 100


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.relu(self.one(F.relu(x))))


def residual_net() -> nn.Module:
    """Three blocks of 48 channels at half resolution, 0.13 million weights."""
    torch.manual_seed(0)
    blocks = [Residual(48) for _ in range(3)]
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, stride=2, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)
    ).eval()


def digits_net() -> tuple[nn.Module, Tensor, Tensor]:
    """A conv net trained on the digits, and the first 100 test images that it classifies correctly."""
    flat, target = load_digits(return_X_y=True)
    torch.manual_seed(0)
    order = torch.randperm(len(flat))
    x = torch.tensor(flat, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(target)[order]
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 64, 10),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(6):
        for rows in torch.randperm(1200).split(50):
            adam.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            adam.step()
    model.eval()
    x, y = x[1200:], y[1200:]
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:BATCH]
    return model, x[right], y[right]


def floor(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    for _ in range(steps):
        seen = x.detach().requires_grad_(True)
        torch.autograd.grad(F.cross_entropy(model(seen), y, reduction="sum"), seen)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass(frozen=True)
class Row:
    question: str
    attack: str
    threat: str
    floor_passes: int
    floor_seconds: float
    ratio: float
    low: float
    high: float
    forwards: float
    backwards: float
    robust: float


@dataclass(frozen=True)
class Trial:
    question: str
    name: str
    attack: Attack
    threat: Threat
    passes: int


def measure(trial: Trial, model: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Row:
    def attack():
        return trial.attack(model, x, y, trial.threat, generator=seeded(0, "benchmark", range(len(x))))

    got = attack()
    bare, ratios = [], []
    for _ in range(rounds):
        before = seconds(lambda: floor(model, x, y, trial.passes))
        ours = seconds(attack)
        after = seconds(lambda: floor(model, x, y, trial.passes))
        bare.append((before + after) / 2)
        ratios.append(ours / bare[-1])
    return Row(
        question=trial.question,
        attack=trial.name,
        threat=str(trial.threat),
        floor_passes=trial.passes,
        floor_seconds=round(statistics.median(bare), 4),
        ratio=round(statistics.median(ratios), 3),
        low=round(min(ratios), 3),
        high=round(max(ratios), 3),
        forwards=round(got.forwards.double().mean().item(), 2),
        backwards=round(got.backwards.double().mean().item(), 2),
        robust=round(1 - got.broken.double().mean().item(), 3),
    )


def trials() -> list[Trial]:
    small, wide = Linf(eps=1e-6), Linf(eps=0.2)
    return [
        Trial("none breaks", "PGD-20", PGD(steps=20), small, 20),
        Trial("none breaks", "PGD-20, margin", PGD(steps=20, score="margin"), small, 20),
        Trial("none breaks", "PGD-20", PGD(steps=20), L2(eps=1e-5), 20),
        Trial("brittle", "PGD-20", PGD(steps=20), wide, 20),
        Trial("brittle", "PGD-100", PGD(steps=100), wide, 100),
        Trial("brittle", "PGD-20", PGD(steps=20), L2(eps=1.5), 20),
        Trial("brittle", "CW-Linf", CarliniWagnerLinf(), wide, 100),
        Trial("brittle", "SPSA, 20 steps of 32", SPSA(), wide, 660),
        Trial("brittle", "PGD-20, last iterate", PGD(steps=20, keep="last"), wide, 20),
    ]


def table(rows: list[Row]) -> str:
    head = (
        "| classifier | attack | threat | × floor (lowest to highest) | floor, CPU s | forwards | backwards | left |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(
        f"| {r.question} | {r.attack} | {r.threat} | {r.ratio:.3f} ({r.low:.3f} to {r.high:.3f}) | "
        f"{r.floor_passes} passes, {r.floor_seconds:.3f} | {r.forwards:g} | {r.backwards:g} | {r.robust:.0%} |\n"
        for r in rows
    )


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--quick", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    random_net = residual_net()
    for weight in random_net.parameters():
        weight.requires_grad_(False)
    noise = torch.rand(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    trained, x, y = digits_net()
    for weight in trained.parameters():
        weight.requires_grad_(False)
    subjects = {"none breaks": (random_net, noise, random_net(noise).argmax(1)), "brittle": (trained, x, y)}
    rounds = 1 if given.quick else given.rounds
    console = Console(stderr=True)
    rows = []
    for trial in track(trials(), "attacks", console=console):
        model, images, labels = subjects[trial.question]
        rows.append(measure(trial, model, images, labels, rounds))
    print(table(rows))
    if not given.quick:
        here = Path(__file__)
        setting = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1, "rounds": rounds}
        record = {**setting, "rows": [asdict(row) for row in rows]}
        here.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        intro = (
            "# The cost of an attack\n\nWritten by `python benchmarks/attacks.py`, which says what is measured. "
            f"Process CPU seconds, one thread, batch {BATCH}, torch {torch.__version__}, median of {rounds} rounds.\n\n"
        )
        here.with_suffix(".md").write_text(intro + table(rows))


if __name__ == "__main__":
    main()
