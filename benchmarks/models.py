"""What each network of the catalog weighs: its parameters, and the memory that it needs at batch 64.

Memory is the growth of the peak resident set over one pass on random images, each pass in a fresh process after the
same pass on one image, which loads whatever is loaded once. *predict* keeps no graph, *attack* differentiates the
cross-entropy by the images with frozen weights, *train* differentiates it by the weights and takes one step of SGD.
What does not fit this machine is drawn as a line through two smaller batches.

    python benchmarks/models.py                 # renews benchmarks/models.json and docs/models.md
    python benchmarks/models.py sonet resnet10  # these alone; the other rows stay as they are
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.progress import track

from verigrad import catalog

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "models.md"
BATCH = 64
SMALLER = (16, 32)
WRAPPERS = ("scaled-logits", "quantised-input", "normalised")
PASSES = ("predict", "attack", "train")
LIMIT = 17 * 1024
"""MiB that a pass may take; of one that needs more the smaller batches are measured."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network as its paper has it: the spec, and the images (C, H, W) that it takes there."""

    spec: str
    shape: tuple[int, int, int]


MNIST, CIFAR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)
SHAPES = {"small-conv": MNIST, "skew-linear": MNIST, "neural-ode-mnist": MNIST}
OTHERS = {
    "small-conv": (("small-conv:in_channels=3", CIFAR),),
    "sonet": (("sonet:channels=32", CIFAR), ("sonet:blocks=1-1-1-1,variant=paper", CIFAR)),
    "soblock": (("soblock:channels=32", CIFAR), ("soblock:variant=paper", CIFAR)),
    "soblock-wide": (("soblock-wide:variant=paper", CIFAR),),
    "resnet10": (("resnet10:channels=32", CIFAR),),
    "resnet50": (("resnet50:stem=imagenet,classes=1000", IMAGENET),),
}


def cases() -> dict[str, list[Case]]:
    """All rows, by the name in the catalog."""
    found: dict[str, list[Case]] = {}
    for entry in catalog.entries("model"):
        if entry.name in WRAPPERS:
            continue
        found[entry.name] = [Case(spec=entry.name, shape=SHAPES.get(entry.name, CIFAR))]
        found[entry.name] += [Case(spec=spec, shape=shape) for spec, shape in OTHERS.get(entry.name, ())]
    return found


def one_pass(model: torch.nn.Module, which: str, x: torch.Tensor) -> None:
    y = torch.zeros(len(x), dtype=torch.int64)
    if which == "predict":
        with torch.no_grad():
            model.eval()(x)
    elif which == "attack":
        model.eval().requires_grad_(False)
        at = x.requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(at), y), at)
    else:
        optimiser = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)
        F.cross_entropy(model(x), y).backward()
        optimiser.step()


def peak() -> float:
    """MiB of the highest resident set of this process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def child(spec: str, shape: tuple[int, ...], which: str, batch: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT * 2**20, LIMIT * 2**20))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = catalog.build("model", spec)
    one_pass(model, which, torch.rand(2, *shape))
    model.zero_grad(set_to_none=True)
    x = torch.rand(batch, *shape)
    before = peak()
    one_pass(model, which, x)
    print(json.dumps({"memory": peak() - before, "parameters": sum(p.numel() for p in model.parameters())}))


def measured(case: Case) -> dict[str, Any]:
    row: dict[str, Any] = {"shape": case.shape}
    for which in PASSES:
        got = measured_pass(case, which, BATCH)
        row[which] = got and round(got["memory"])
        if got is None:
            row[which] = {
                str(batch): round(less["memory"]) for batch in SMALLER if (less := measured_pass(case, which, batch))
            }
        else:
            row["parameters"] = got["parameters"]
    row["measured"] = date.today().isoformat()
    return row


def measured_pass(case: Case, which: str, batch: int) -> dict[str, Any] | None:
    """Memory and parameters, or None where it does not fit."""
    shape = "x".join(map(str, case.shape))
    command = [sys.executable, __file__, "--child", case.spec, shape, which, str(batch)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        print(f"{case.spec}, {which}, batch {batch}: {run.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="rows to renew; all by default")
    parser.add_argument(
        "--child", nargs=4, metavar=("SPEC", "SHAPE", "PASS", "BATCH"), help="measure one pass; internal"
    )
    chosen = parser.parse_args()
    if chosen.child:
        spec, shape, which, batch = chosen.child
        child(spec, tuple(map(int, shape.split("x"))), which, int(batch))
        return
    store = HERE / "models.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {"rows": {}}
    results["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread"
    results["torch"] = torch.__version__
    wanted = [(name, case) for name, listed in cases().items() for case in listed]
    wanted = [(name, case) for name, case in wanted if not chosen.names or name in chosen.names]
    for _, case in track(wanted, description="models"):
        results["rows"][case.spec] = measured(case)
        kept = {case.spec: results["rows"].get(case.spec) for listed in cases().values() for case in listed}
        results["rows"] = {spec: row for spec, row in kept.items() if row}
        store.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(page(results))


def page(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# The networks, and what they weigh",
        "",
        f"Memory in MiB at batch {BATCH}, beyond the weights: *predict* without a graph, *attack* with the gradient by "
        "the images, *train* with one step of SGD. Images are uniform noise and weights fresh; a solver that chooses "
        "its steps takes more of them once a network is trained. `python benchmarks/models.py`, n = 1 pass each; "
        f"{results['machine']}; torch {results['torch']}. ≈ is a pass that needs more than {LIMIT:,} MiB: a line "
        f"through what it takes at batch {SMALLER[0]} and {SMALLER[1]}.",
        "",
        "| spec | network | source | images | parameters | predict | attack | train | measured |",
        "| --- | --- | --- | --- | --: | --: | --: | --: | --- |",
    ]
    for spec, row in results["rows"].items():
        entry = catalog.find("model", spec.partition(":")[0])
        images = "×".join(map(str, row["shape"]))
        memory = " | ".join(told(row[which]) for which in PASSES)
        lines.append(
            f"| `{spec}` | {entry.summary} | {entry.paper or '–'} | {images} | {row.get('parameters', 0):,} | {memory} "
            f"| {row['measured']} |"
        )
    return "\n".join(lines) + "\n"


def told(memory: int | dict[str, int] | None) -> str:
    """MiB at the batch, measured or drawn on."""
    if isinstance(memory, int):
        return f"{memory:,}"
    if memory is None or len(memory) < len(SMALLER):
        return "–"
    (first, low), (last, high) = ((int(batch), memory[batch]) for batch in memory)
    return f"≈ {round(high + (high - low) * (BATCH - last) // (last - first), -2):,}"


if __name__ == "__main__":
    main()
