"""What an attack costs and what it leaves standing, beside other libraries' attacks with the same parameters.

The floor is the bare cost of a forward with an input gradient (`autograd.grad`, weights frozen) on the whole batch,
measured just before and just after each attack; `× floor` is an attack's process CPU seconds on one thread over those
of as many such passes as it has steps, the median over the rounds, so that other work on the machine hardly enters.
Every library gets the model as it was trained, with weights that want gradients. Round i has seed i. Passes are counted
at the model, for every library alike. `left` is the robust accuracy that each seed leaves: adversarial images are
judged here, by one forward pass, and count if they are inside the threat.

The questions are in `attacks_trials.py`, the classifiers in `attacks_models.py`, the other libraries' attacks in
`attack_peers.py`, which says how to install them; without them their rows are left out.

    python benchmarks/attacks.py --cifar10 DIR      writes attacks.json and attacks.md beside this file
    python benchmarks/attacks.py                    without the classifier that is trained on CIFAR-10
    python benchmarks/attacks.py --quick            one round, nothing written
    python benchmarks/attacks.py --weights DIR      trained weights are kept there, and taken from there
    python benchmarks/attacks.py --only ensemble    the questions whose name holds this; the others stay as they are
    python benchmarks/attacks.py --missing          the rows that attacks.json lacks
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from attack_peers import Counted, Libraries, load_libraries
from attacks_models import Subject, cifar_subject, digits_subject, random_subject
from attacks_trials import BATCH, FAR, Trial, equal_queries, trials
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from verigrad.core.threat import L2, Linf

HERE = Path(__file__)
# Passes of the floor before each attack, and after it.
SAMPLE = 6


@dataclass(frozen=True, kw_only=True)
class Row:
    """Passes are a sample's mean, over the rounds; `left` and `distance` (median, mean in L2) have one entry a seed."""

    question: str
    subject: str
    attack: str
    package: str
    images: int
    ratios: list[float]
    seconds: float
    forwards: float
    backwards: float
    left: list[float]
    median: list[float]
    mean: list[float]


def floor(model: nn.Module, x: Tensor, y: Tensor, passes: int) -> float:
    """CPU seconds of one pass."""
    model.requires_grad_(False)
    start = time.process_time()
    for _ in range(passes):
        seen = x.detach().requires_grad_(True)
        torch.autograd.grad(F.cross_entropy(model(seen), y, reduction="sum"), seen)
    spent = time.process_time() - start
    model.requires_grad_(True)
    return spent / passes


def measure(trial: Trial, subject: Subject) -> Row:
    x, y = subject.x[: trial.images], subject.y[: trial.images]
    threat = L2(eps=FAR) if trial.minimal else Linf(eps=subject.eps)
    ratios, spent, forwards, backwards, left, lengths = [], [], [], [], [], []
    for seed in range(trial.rounds):
        counted = Counted(subject.model).eval()
        before = floor(subject.model, x, y, SAMPLE) if trial.passes else 0.0
        start = time.process_time()
        x_adv = trial.run(counted, x, y, subject.eps, seed).detach()
        spent.append(time.process_time() - start)
        after = floor(subject.model, x, y, SAMPLE) if trial.passes else 0.0
        if trial.passes:
            ratios.append(spent[-1] / (trial.passes * (before + after) / 2))
        forwards.append(counted.forwards / len(x))
        backwards.append(counted.backwards / len(x))
        with torch.no_grad():
            broken = (subject.model(x_adv).argmax(1) != y) & threat.contains(x_adv, x)
        left.append(1 - broken.double().mean().item())
        lengths.append((x_adv - x)[broken].double().flatten(1).norm(dim=1))
    return Row(
        question=trial.question,
        subject=trial.subject,
        attack=trial.attack,
        package=trial.package,
        images=len(x),
        ratios=[round(ratio, 3) for ratio in ratios],
        seconds=round(statistics.median(spent), 3),
        forwards=round(statistics.mean(forwards), 1),
        backwards=round(statistics.mean(backwards), 1),
        left=[round(share, 3) for share in left],
        median=[round(length.median().item(), 4) for length in lengths] if trial.minimal else [],
        mean=[round(length.mean().item(), 4) for length in lengths] if trial.minimal else [],
    )


def table(rows: list[Row]) -> str:
    head = (
        "| question | classifier | attack | library | × floor (lowest to highest) | CPU s | forwards | backwards "
        "| left, by seed | L2, median and mean |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(
        f"| {r.question} | {r.subject}, n = {r.images} | {r.attack} | {r.package} | {_ratio(r.ratios)} | {r.seconds:g} "
        f"| {r.forwards:g} | {r.backwards:g} | {', '.join(f'{share:.0%}' for share in r.left)} "
        f"| {', '.join(f'{a:g} and {b:g}' for a, b in zip(r.median, r.mean, strict=True))} |\n"
        for r in rows
    )


def _ratio(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else ""


def subjects(needed: set[str], cifar10: Path | None, weights: Path | None) -> dict[str, Subject]:
    makers: dict[str, Callable[[], Subject]] = {
        "random": lambda: random_subject(BATCH),
        "digits": lambda: digits_subject(weights, BATCH),
    }
    if cifar10 is not None:
        makers["brittle"] = lambda: cifar_subject(cifar10, weights, BATCH)
    return {name: make() for name, make in makers.items() if name in needed}


def foolbox_queries(rows: list[Row]) -> float:
    """What foolbox's Boundary, which runs before verigrad's, took of a sample; 0 where it was not run."""
    return next((row.forwards for row in rows if row.question == "Boundary" and row.package == "foolbox"), 0.0)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--cifar10", type=Path)
    options.add_argument("--weights", type=Path)
    options.add_argument("--only", default="")
    options.add_argument("--missing", action="store_true")
    options.add_argument("--quick", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # those of other libraries
    libraries = load_libraries()
    known_rows = {name(row) for row in recorded()} if given.missing else set()
    wanted = [one for one in trials(libraries) if given.only in one.question and name(one) not in known_rows]
    wanted.sort(key=lambda trial: (trial.question == "Boundary") * (trial.package == "verigrad"))
    known = subjects({trial.subject for trial in wanted}, given.cifar10, given.weights)
    rows = recorded() if given.missing else []
    for trial in track(wanted, "attacks", console=Console(stderr=True)):
        if trial.subject in known:
            if trial.question == "Boundary" and (took := foolbox_queries(rows)):
                trial = equal_queries(trial, took)
            trial = replace(trial, rounds=1) if given.quick else trial
            rows.append(measure(trial, known[trial.subject]))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if not given.quick:
                write(rows, libraries, cifar10=given.cifar10 is not None)


def name(one: Trial | Row) -> tuple[str, ...]:
    return one.question, one.subject, one.attack, one.package


def recorded() -> list[Row]:
    file = HERE.with_suffix(".json")
    return [Row(**row) for row in json.loads(file.read_text())["rows"]] if file.is_file() else []


def bf16_in_hardware() -> str:
    flags = Path("/proc/cpuinfo")
    told = flags.read_text().split() if flags.is_file() else []
    return "with" if "avx512_bf16" in told or "amx_bf16" in told else "without" if told else "perhaps"


def write(rows: list[Row], libraries: Libraries, *, cifar10: bool) -> None:
    file = HERE.with_suffix(".json")
    by_name = {name(row): row for row in [*recorded(), *rows]}
    order = list(dict.fromkeys(trial.question for trial in trials(libraries)))
    rows = [row for row in by_name.values() if row.question in order]
    rows.sort(key=lambda row: (order.index(row.question), row.subject, row.package != "verigrad", row.package))
    setting = {"torch": torch.__version__, "machine": platform.machine(), "threads": 1, "libraries": libraries.found}
    file.write_text(json.dumps({**setting, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in libraries.found.items()) or "no other library"
    absent = "".join(f"Left out: {name} ({why}).\n" for name, why in libraries.missing.items())
    absent += "" if cifar10 else "Left out: the classifier trained on CIFAR-10, since no --cifar10 was given.\n"
    intro = (
        "# The cost of an attack, and what it leaves\n\n"
        "Written by `python benchmarks/attacks.py --cifar10 DIR`, which says what is measured. "
        f"Process CPU seconds, one thread of a {os.cpu_count()}-core {platform.machine()} CPU, "
        f"{bf16_in_hardware()} bfloat16 in hardware, last row {date.today()}, torch {torch.__version__}; {versions}.\n"
        f"{absent}\n"
    )
    HERE.with_suffix(".md").write_text(intro + table(rows))


if __name__ == "__main__":
    main()
