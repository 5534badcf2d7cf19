"""What a training step costs beside a natural one.

A step is the loss, its gradient by the weights and one update of SGD, in training mode, on a batch of 64 random images
of 3×32×32, on a residual network of 14 layers (two basic blocks of 16, 32 and 64 channels, batch norm). Natural steps
run between the others, and each figure is the median over the rounds of the ratio of process CPU seconds on one thread,
the method's over the mean of its two natural neighbours, so that other work on the machine hardly enters. The update
alone would be the same for all. `free` makes several updates with a batch, which the last column divides by.

Passes are counted at the network: `forwards` of the whole batch, and `backwards` that reach its logits. With one unit
for a forward, one for a backward to the images or activations, and one more where it goes on to the weights, a natural
step has 3 units; `floor` is a method's units over 3.

Three more tables: successive approximations on a ResNet18, its layer problem by clipping singular values and by SCS,
and what forward passes in bfloat16 gain.

    python benchmarks/training.py                   writes training.json and training.md beside this file
    python benchmarks/training.py --quick           one round at batch 8, nothing written
    python benchmarks/training.py --only TRADES     the rows whose name holds this; the others stay as they are
    python benchmarks/training.py --part steps      one table: steps, stable, layer or bfloat16; the others stay
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from training_layers import EVERY, NETWORKS, LayerProblem, Low, Stable, bfloat16, layer_problem, stable, today
from training_steps import NATURAL, Row, Trial, measured
from training_written_out import WRITTEN_OUT

HERE = Path(__file__).resolve().parent
EPS = "linf(eps=8/255)"
PARTS = ("steps", "stable", "layer", "bfloat16")

OBJECTIVES = (
    ("Gaussian noise", "gaussian-noise:sigma=0.25", 3),
    ("FGSM-AT, random start", f"fgsm-adversarial:threat={EPS}", 5),
    ("PGD-7", f"adversarial:threat={EPS}", 17),
    ("TRADES-10", f"trades:threat={EPS}", 27),
    ("gradient penalty l2, finite differences", "gradient-penalty", 7),
    ("gradient penalty l1, finite differences", "gradient-penalty:norm=l1", 7),
    ("gradient penalty l2, shared backward", "gradient-penalty:by=shared-backward", 6),
    ("gradient penalty l2, double backprop", "gradient-penalty:by=double-backprop", None),
)
ALGORITHMS = (
    ("free, 8 replays", f"free:threat={EPS}", 24),
    ("YOPO-5-3", f"yopo:threat={EPS}", 15),
    ("YOPO-5-3, its three steps one by one", f"yopo:threat={EPS},collapse=false", 15),
    ("successive approximations, between sure steps", "successive-approximations", 3),
)
LOW = ("PGD-7", "YOPO-5-3")


def trials() -> list[Trial]:
    rows = [Trial(name=name, kind="objective", spec=spec, units=units) for name, spec, units in OBJECTIVES]
    rows += [Trial(name=name, kind="bare", spec="") for name in WRITTEN_OUT]
    return rows + [Trial(name=name, kind="algorithm", spec=spec, units=units) for name, spec, units in ALGORITHMS]


def steps_table(rows: list[Row]) -> list[str]:
    lines = [
        "| step | × natural (lowest to highest) | floor | forwards | backwards | natural step, CPU s | an update |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        floor = "–" if row.floor is None else f"{row.floor:.2f}"
        lines.append(
            f"| {row.name} | {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}) | {floor} | {row.forwards} | "
            f"{row.backwards} | {row.natural_seconds:.3f} | {row.ratio / row.updates:.2f} |"
        )
    return lines


def stable_table(rows: list[Stable]) -> list[str]:
    lines = [
        f"| successive approximations, batch {rows[0].batch} | × natural | a sure step | mean of {EVERY} steps | "
        "natural step, CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row.name} | {row.usual:.2f} | {row.sure:.2f} | {row.mean:.2f} | {row.natural_seconds:.2f} |"
        for row in rows
    ]


def layer_table(rows: list[LayerProblem]) -> list[str]:
    lines = [
        "| layer problem, float32 | norm before | clipping, ms | SCS, s (its tolerance) | ratio | largest difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {row.size}×{row.size} | {row.norm:.2f} | {1000 * row.clip_seconds:.2f} | "
        f"{row.scs_seconds:.2f} ({row.tolerance:.0e}) | {row.ratio:.0f} | {row.difference:.1e} |"
        for row in rows
    ]


def low_table(rows: list[Low]) -> list[str]:
    lines = ["| forward passes in bfloat16 | times as fast as float32 (lowest to highest) |", "| --- | --- |"]
    return lines + [f"| {row.name} | {row.gain:.2f} ({row.low:.2f} to {row.high:.2f}) |" for row in rows]


def page(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    rows: list[Row] = found["steps"]
    machine = found["machine"]
    rounds = sorted({row.rounds for row in rows})
    blocks = [
        ["# The cost of a training step"],
        [
            "Written by `python benchmarks/training.py`, which says what is measured. Process CPU seconds of a step "
            f"over those of a natural step, one thread, batch {found['batch']}, torch {machine['torch']}, median of "
            f"{' or '.join(map(str, rounds))} rounds; {machine['kind']}, {machine['date']}."
        ],
        steps_table(rows),
    ]
    tables = (("stable", stable_table), ("layer", layer_table), ("bfloat16", low_table))
    blocks += [table(found[part]) for part, table in tables if found[part]]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def ran(part: str, only: str, quick: bool, rounds: int) -> list[Any]:
    batch = 8 if quick else 64
    if part == "steps":
        return list(
            measured(
                [trial for trial in trials() if any(word in trial.name for word in only.split("|"))], batch, rounds
            )
        )
    if part == "stable":
        return list(stable(only, 2, 1, channels=4) if quick else stable(only, 64, min(rounds, 2)))
    if part == "layer":
        sizes = ((16, 1e-4, 3, 1),) if quick else ((64, 1e-4, 50, 5), (64, 1e-8, 50, 3), (512, 1e-4, 7, 1))
        return [layer_problem(*size) for size in sizes]
    return list(bfloat16([NATURAL, *(trial for trial in trials() if trial.name in LOW)], batch, rounds))


def kept(store: Path) -> dict[str, list[Any]]:
    """What the last run wrote."""
    if not store.exists():
        return {part: [] for part in PARTS}
    told = json.loads(store.read_text())
    made = (Row, Stable, LayerProblem, Low)
    return {part: [kind(**row) for row in told.get(part, [])] for part, kind in zip(PARTS, made, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round at batch 8, nothing written")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name holds this text; a|b for two")
    parser.add_argument("--part", default="", choices=PARTS, help="one table")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if chosen.quick else chosen.rounds
    store = HERE / "training.json"
    parts = (chosen.part,) if chosen.part else ("steps",) if chosen.only else PARTS
    fresh = {part: ran(part, chosen.only, chosen.quick, rounds) for part in parts}
    found: dict[str, Any] = ({part: [] for part in PARTS} if chosen.quick else kept(store)) | fresh
    if not chosen.quick:
        before = kept(store)
        for part, names in (("steps", [trial.name for trial in trials()]), ("stable", list(NETWORKS))):
            rows = {row.name: row for row in [*before[part], *fresh.get(part, [])]}
            found[part] = [rows[name] for name in names if name in rows]
    machine = {"platform": platform.platform(), "torch": torch.__version__, "kind": "2-core x86 CPU", "date": today()}
    found |= {"machine": machine, "batch": 8 if chosen.quick else 64}
    text = page(found)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if chosen.quick:
        return
    written = {part: [asdict(row) for row in found[part]] for part in PARTS}
    store.write_text(json.dumps({**machine, "batch": found["batch"], **written}, indent=1) + "\n")
    (HERE / "training.md").write_text(text)


if __name__ == "__main__":
    main()
