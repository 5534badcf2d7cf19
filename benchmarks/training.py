"""What a training step costs beside a natural one.

A step is the loss, its gradient by the weights and one update of SGD, in training mode, on a batch of 64 random images
of 3×32×32, on a residual network of 14 layers (two basic blocks of 16, 32 and 64 channels, batch norm). Natural steps
run between the others, and each figure is the median over the rounds of the ratio of process CPU seconds on one thread,
the method's over the mean of its two natural neighbours, so that other work on the machine hardly enters. The update
alone would be the same for all. `free` makes several updates with a batch: its figure is for a batch.

Passes are counted at the network: `forwards` of the whole batch, and `backwards` that reach its logits. With one unit
for a forward, one for a backward to the images or activations, and one more where it goes on to the weights, a natural
step has 3 units; `floor` is a method's units over 3.

    python benchmarks/training.py                   writes training.json and training.md beside this file
    python benchmarks/training.py --quick           one round at batch 8, nothing written
    python benchmarks/training.py --only trades     the rows whose name holds this; the others stay as they are
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.seeds import seeded
from verigrad.models.networks.resnet6n2 import ResNet6n2
from verigrad.training.trainer import initialised

HERE = Path(__file__).resolve().parent
EPS = "linf(eps=8/255)"
Step = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row: a spec of the catalog, and the units that it cannot do without; None where nobody has counted them."""

    name: str
    kind: str
    spec: str
    units: int | None = None


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
# Rows of the algorithms appear as soon as the catalog knows their names.
ALGORITHMS = {
    "free": (("free, 8 replays", f"free:threat={EPS}"),),
    "yopo": (("YOPO-5-3", f"yopo:threat={EPS}"),),
    "successive-approximations": (("successive approximations", "successive-approximations"),),
}


def trials() -> list[Trial]:
    rows = [Trial(name=name, kind="objective", spec=spec, units=units) for name, spec, units in OBJECTIVES]
    rows += [Trial(name=name, kind="bare", spec="") for name in WRITTEN_OUT]
    known = {entry.name for entry in catalog.entries("algorithm")}
    for entry, listed in ALGORITHMS.items():
        rows += [Trial(name=name, kind="algorithm", spec=spec) for name, spec in listed if entry in known]
    return rows


@dataclass(kw_only=True)
class Bench:
    """What a trainer lends to an algorithm, with nothing but plain SGD behind it."""

    model: nn.Module
    module: nn.Module
    optimiser: torch.optim.Optimizer
    lr: float = 1e-3
    memory: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    steps: int = 1000

    def update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def precision(self) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass
class Passes:
    """Counts what a network does; `seen` is its logits' hook."""

    forwards: int = 0
    backwards: int = 0

    def seen(self, module: nn.Module, inputs: object, logits: Tensor) -> None:
        self.forwards += 1
        if logits.requires_grad:
            logits.register_hook(self.back)

    def back(self, gradient: Tensor) -> None:
        self.backwards += 1


def bare_pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Seven steps in eval mode and the loss, with nothing else."""
    model.eval()
    x_adv = x + 0.03 * (2 * torch.rand_like(x) - 1)
    for _ in range(7):
        x_adv = x_adv.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = inside(x_adv.detach() + 0.01 * g.sign(), x)
    model.train()
    return F.cross_entropy(model(x_adv), y)


def bare_difference(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The squared l2 penalty by finite differences, with nothing else."""
    at = x.detach().requires_grad_(True)
    low = F.cross_entropy(model(at), y, reduction="none")
    (g,) = torch.autograd.grad(low.sum(), at, retain_graph=True)
    moved = x + 0.01 * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    high = F.cross_entropy(model(moved), y, reduction="none")
    return low.mean() + ((high - low) / 0.01).square().mean() / 2


def released_trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The passes of the released code: clean predictions anew at every step and twice in the loss, with a graph."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(10):
        x_adv = x_adv.detach().requires_grad_(True)
        kl = F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="sum")
        (g,) = torch.autograd.grad(kl, x_adv)
        x_adv = inside(x_adv.detach() + 0.007 * g.sign(), x)
    model.train()
    natural = F.cross_entropy(model(x), y)
    return natural + 6 * F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="batchmean")


def inside(x_adv: Tensor, x: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x_adv, x - 0.031), x + 0.031).clamp(0, 1)


# Written out beside ours, to tell what a method costs from what our code adds to it.
WRITTEN_OUT: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "PGD-7, bare loop": bare_pgd,
    "TRADES-10 as in the released code": released_trades,
    "gradient penalty l2, finite differences, bare": bare_difference,
}


def step_of(trial: Trial, batch: int) -> tuple[Step, nn.Module]:
    """A training step on a network of its own, ready to be repeated."""
    model = initialised(lambda: ResNet6n2(blocks=2), 0).train()
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 3, 32, 32, generator=draw)
    y = torch.randint(10, (batch,), generator=draw)
    state = Bench(model=model, module=model, optimiser=torch.optim.SGD(model.parameters(), lr=Bench.lr, momentum=0.9))
    part = None if trial.kind == "bare" else catalog.build(trial.kind, trial.spec)

    def step() -> None:
        streams = seeded(0, "benchmark", range(batch))
        if trial.kind == "algorithm":
            part.step(state, x, y, generator=streams)
            return
        bare = part is None
        total = WRITTEN_OUT[trial.name](model, x, y) if bare else part(model, x, y, generator=streams).total
        total.backward()
        state.update()

    return step, model


@dataclass(frozen=True)
class Row:
    name: str
    spec: str
    ratio: float
    low: float
    high: float
    rounds: int
    floor: float | None
    forwards: int
    backwards: int
    natural_seconds: float


def seconds(work: Step) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def counted(step: Step, model: nn.Module) -> Passes:
    passes = Passes()
    hook = model.register_forward_hook(passes.seen)
    step()
    hook.remove()
    return passes


def measured(rows: list[Trial], batch: int, rounds: int) -> Iterator[Row]:
    natural, _ = step_of(Trial(name="natural", kind="objective", spec="natural"), batch)
    natural()
    for trial in track(rows, description="training steps"):
        step, model = step_of(trial, batch)
        passes = counted(step, model)
        ratios, bare = [], [seconds(natural)]
        for _ in range(rounds):
            ours = seconds(step)
            bare.append(seconds(natural))
            ratios.append(2 * ours / (bare[-2] + bare[-1]))
        yield Row(
            name=trial.name,
            spec=trial.spec,
            ratio=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            rounds=rounds,
            floor=None if trial.units is None else trial.units / 3,
            forwards=passes.forwards,
            backwards=passes.backwards,
            natural_seconds=statistics.median(bare),
        )


def page(rows: list[Row], machine: dict[str, str], batch: int) -> str:
    """The table as Markdown."""
    lines = [
        "# The cost of a training step",
        "",
        "Written by `python benchmarks/training.py`, which says what is measured. Process CPU seconds of a step over "
        f"those of a natural step, one thread, batch {batch}, torch {machine['torch']}, median of "
        f"{rows[0].rounds} rounds.",
        "",
        "| step | × natural (lowest to highest) | floor | forwards | backwards | natural step, CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        floor = "–" if row.floor is None else f"{row.floor:.2f}"
        lines.append(
            f"| {row.name} | {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f}) | {floor} | {row.forwards} | "
            f"{row.backwards} | {row.natural_seconds:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round at batch 8, nothing written")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    batch, rounds = (8, 1) if chosen.quick else (64, chosen.rounds)
    wanted = [trial for trial in trials() if chosen.only in trial.name]
    fresh = {row.name: row for row in measured(wanted, batch, rounds)}
    machine = {"platform": platform.platform(), "torch": torch.__version__}
    store = HERE / "training.json"
    if not chosen.quick and store.exists():
        kept = {row["name"]: Row(**row) for row in json.loads(store.read_text())["rows"]}
        fresh = kept | fresh
    rows = [fresh[trial.name] for trial in trials() if trial.name in fresh]
    text = page(rows, machine, batch)
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
    if chosen.quick:
        return
    store.write_text(json.dumps({**machine, "batch": batch, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    (HERE / "training.md").write_text(text)


if __name__ == "__main__":
    main()
