"""What a solve costs against its bare evaluations of the field, and against the peers.

Work: x and z of the same shape, f = (LeakyReLU(conv 3×3 z), LeakyReLU(−conv 3×3ᵀ x)), Dopri5 on [0, 1], forward and
backward to x, z and the kernel. The floor is a chain of as many evaluations of f as the solve made.

Times are CPU seconds of one thread, all rows of a table in one process and in turn, several rounds; each ratio is the
median over the rounds. The last column divides by a floor of as many evaluations as the row itself made, which tells
a row that saves evaluations from one that saves overhead. Memory is the growth of the peak resident set over one
forward and backward pass, each row in a fresh process.

    python benchmarks/solvers.py            # renews benchmarks/solvers.json and benchmarks/solvers.md
    python benchmarks/solvers.py --quick    # the small cases only; the other tables stay as they are

Each table says when it was measured, over how many rounds and under what load of the machine.

torchode is measured where it can be imported: `pip install --no-deps --target DIR torchode torchtyping
typeguard==2.13.3`, then PYTHONPATH=DIR.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.solvers import (
    DOPRI5,
    BatchCoupled,
    Checkpointed,
    Direct,
    Gradient,
    PerSample,
    Replay,
    solve,
)

HERE = Path(__file__).resolve().parent
SHAPES = {"small": (64, 16, 8), "one": (1, 16, 8), "medium": (32, 32, 32), "large": (64, 32, 32)}
TOLERANCES = (0.1, 0.001)
ROUNDS = {"large": 3, "medium": 3, "small": 15, "one": 60}
TARGETS = {"large": 1.10, "medium": 1.10, "small": 1.20}
"""What a solve of ours with frozen steps may cost over the floor; the medium shape is held to that of the large."""

FASTER = {"large": 2.2, "medium": 2.2, "small": 2.5}
"""How many times faster than torchdiffeq, both with its end of the interval."""

MEMORY = 0.45
"""What of torchdiffeq's extra memory, on the large state."""

AIMED = ("ours, end on t1", "ours, torchdiffeq's end")
PEERS = ("torchdiffeq", "torchode")
LARGE = (
    "floor",
    *AIMED,
    "ours, first step differentiated",
    "ours, whole grid differentiated",
    "ours, replay of a grid",
)
HEAD = "| | evaluations | forward ms | backward ms | × floor | target | × floor of its own evaluations |"
Pair = tuple[Tensor, ...]


class Work:
    """One case: the state, the field, and the ways of solving it."""

    def __init__(self, case: str, tolerance: float) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        batch, channels, size = SHAPES[case]
        self.tolerance = tolerance
        self.weight = (torch.randn(channels, channels, 3, 3) * 0.05).requires_grad_()
        self.y0 = tuple(torch.randn(batch, channels, size, size).requires_grad_() for _ in range(2))
        self.calls = 0
        self.ours("clip")()
        self.evaluations = self.calls

    def field(self, t: Any, y: Pair) -> Pair:
        self.calls += 1
        x, z = y
        return (
            F.leaky_relu(F.conv2d(z, self.weight, padding=1)),
            F.leaky_relu(-F.conv_transpose2d(x, self.weight, padding=1)),
        )

    def floor(self) -> Pair:
        y = self.y0
        for _ in range(self.evaluations):
            y = self.field(0.0, y)
        return y

    def ours(self, end: Any, gradient: Gradient = Direct(), *, own: bool = False) -> Callable[[], Pair]:  # noqa: B008
        make = PerSample if own else BatchCoupled
        control = make(rtol=self.tolerance, atol=self.tolerance, end=end)
        return lambda: solve(self.field, self.y0, control=control, gradient=gradient).y1  # pyright: ignore

    def replay(self) -> Callable[[], Pair]:
        with torch.no_grad():
            control = BatchCoupled(rtol=self.tolerance, atol=self.tolerance, end="clip")
            grid = solve(self.field, self.y0, control=control).grid
        return lambda: solve(self.field, self.y0, control=Replay(grid=grid)).y1  # pyright: ignore

    def torchdiffeq(self) -> Pair:
        import torchdiffeq

        t = torch.tensor([0.0, 1.0])
        out = torchdiffeq.odeint(self.field, self.y0, t, rtol=self.tolerance, atol=self.tolerance, method="dopri5")
        return tuple(part[1] for part in out)

    def torchode(self) -> Pair:
        import torchode

        shape, half = self.y0[0].shape, self.y0[0][0].numel()

        def flat(t: Tensor, y: Tensor) -> Tensor:
            x, z = self.field(t, (y[:, :half].reshape(shape), y[:, half:].reshape(shape)))
            return torch.cat([x.flatten(1), z.flatten(1)], 1)

        term = torchode.ODETerm(flat)
        controller = torchode.IntegralController(atol=self.tolerance, rtol=self.tolerance, term=term)
        solver = torchode.AutoDiffAdjoint(
            torchode.Dopri5(term=term), controller, backprop_through_step_size_control=False
        )
        y0 = torch.cat([part.flatten(1) for part in self.y0], 1)
        times = torch.tensor([[0.0, 1.0]]).expand(len(y0), -1)
        return (solver.solve(torchode.InitialValueProblem(y0=y0, t_eval=times)).ys[:, 1],)

    def rows(self) -> dict[str, Callable[[], Pair]]:
        rows = {
            "floor": self.floor,
            "ours, end on t1": self.ours("clip"),
            "ours, torchdiffeq's end": self.ours("interpolate"),
            "ours, replay of a grid": self.replay(),
            "ours, first step differentiated": self.ours("interpolate", Direct(grid="first")),
            "ours, whole grid differentiated": self.ours("interpolate", Direct(grid="all")),
            "ours, own steps": self.ours("clip", own=True),
            "ours, checkpointed": self.ours("clip", Checkpointed()),
        }
        for name in PEERS:
            if importlib.util.find_spec(name):
                rows[name] = getattr(self, name)
        return rows

    def forward_backward(self, run: Callable[[], Pair]) -> tuple[float, float]:
        start = time.thread_time()
        total = sum(part.sum() for part in run())
        middle = time.thread_time()
        # The backward pass runs on this thread too: the engine uses the caller's for the CPU.
        torch.autograd.grad(total, (*self.y0, self.weight))  # pyright: ignore
        return middle - start, time.thread_time() - middle


def measure(case: str, tolerance: float) -> dict[str, Any]:
    """Times of all rows, in turn, and their ratios to the floor of the same round."""
    work = Work(case, tolerance)
    rows = {name: run for name, run in work.rows().items() if case != "large" or name in (*LARGE, *PEERS)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    calls: dict[str, int] = {}
    for turn in range(ROUNDS[case] + 1):
        for name, run in rows.items():
            work.calls = 0
            spent = work.forward_backward(run)
            calls[name] = work.calls
            if turn:
                times[name].append(spent)
    floors = [sum(pair) for pair in times["floor"]]
    return {
        name: {
            "evaluations": calls[name],
            "forward_ms": 1e3 * statistics.median(a for a, _ in pairs),
            "backward_ms": 1e3 * statistics.median(b for _, b in pairs),
            "ratio_to_floor": (ratio := statistics.median(sum(p) / f for p, f in zip(pairs, floors, strict=True))),
            "ratio_to_own_floor": ratio * calls["floor"] / calls[name],
        }
        for name, pairs in times.items()
    }


def peak() -> float:
    """MiB of the highest resident set of this process; `getrusage` would count its parent's too."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def memory(case: str, tolerance: float, name: str) -> float:
    """MiB by which one forward and backward pass of a row raises the peak of a fresh process."""
    command = [sys.executable, __file__, "--memory", case, str(tolerance), name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_child(case: str, tolerance: float, name: str) -> None:
    SHAPES["tiny"] = (1, *SHAPES[case][1:])
    small = Work("tiny", tolerance)
    small.forward_backward(small.rows()[name])  # whatever is loaded or compiled once
    evaluations = small.evaluations
    small = None
    batch = SHAPES[case][0]
    work = Work.__new__(Work)
    work.tolerance, work.evaluations, work.calls = tolerance, evaluations, 0
    channels, size = SHAPES[case][1:]
    work.weight = (torch.randn(channels, channels, 3, 3) * 0.05).requires_grad_()
    work.y0 = tuple(torch.randn(batch, channels, size, size).requires_grad_() for _ in range(2))
    run = {"floor": work.floor, "torchdiffeq": work.torchdiffeq, "torchode": work.torchode}.get(name)
    gradient = Checkpointed() if name == "ours, checkpointed" else Direct()
    run = run or work.ours("clip" if "t1" in name or "check" in name else "interpolate", gradient)
    before = peak()
    work.forward_backward(run)
    print(peak() - before)


def beyond_the_floor() -> dict[str, float]:
    """Cost of one large solve, tolerance 0.1, with the field written in other ways, over that as it stands."""
    work = Work("large", 0.1)
    weight = work.weight
    control = BatchCoupled(rtol=0.1, atol=0.1, end="clip")

    def flipped(t: Any, y: Pair) -> Pair:
        turned = weight.flip(2, 3).transpose(0, 1)
        return F.leaky_relu(F.conv2d(y[1], weight, padding=1)), F.leaky_relu(-F.conv2d(y[0], turned, padding=1))

    def half(t: Any, y: Pair) -> Pair:
        x, z = flipped(t, tuple(part.bfloat16() for part in y)) if weight.dtype == torch.bfloat16 else half_of(y)
        return x.float(), z.float()

    def half_of(y: Pair) -> Pair:
        low, turned = weight.bfloat16(), weight.flip(2, 3).transpose(0, 1).bfloat16()
        x, z = (part.bfloat16() for part in y)
        return F.leaky_relu(F.conv2d(z, low, padding=1)), F.leaky_relu(-F.conv2d(x, turned, padding=1))

    last = tuple(p.detach().to(memory_format=torch.channels_last).requires_grad_() for p in work.y0)
    ways: dict[str, tuple[Any, Pair, bool]] = {
        "as it stands": (work.field, work.y0, True),
        "transposed convolution as a convolution with the flipped kernel": (flipped, work.y0, True),
        "and weights frozen, as in an attack": (flipped, work.y0, False),
        "and channels_last": (flipped, last, False),
        "and a bfloat16 field under float32 norms": (half, work.y0, False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(3):
        for name, (field, y0, trained) in ways.items():
            weight.requires_grad_(trained)
            start = time.thread_time()
            y1 = solve(field, y0, control=control).y1
            torch.autograd.grad(sum(p.sum() for p in y1), (*y0, weight) if trained else y0)  # pyright: ignore
            if turn:
                times[name].append(time.thread_time() - start)
    weight.requires_grad_(True)
    base = times["as it stands"]
    return {n: statistics.median(a / b for a, b in zip(v, base, strict=True)) for n, v in times.items()}


def by_batch() -> dict[str, float]:
    """Milliseconds for each sample of the small shape, tolerance 0.001, under own steps and of the floor, in turn."""
    out = {}
    for batch in (16, 64, 128, 512):
        SHAPES["some"] = (batch, *SHAPES["small"][1:])
        work = Work("some", 0.001)
        rows = {str(batch): work.ours("clip", own=True), f"{batch}, floor": work.floor}
        rounds = [{name: sum(work.forward_backward(run)) for name, run in rows.items()} for _ in range(6)][1:]
        for name in rows:
            out[name] = 1e3 * statistics.median(spent[name] for spent in rounds) / batch
    return out


def compiled() -> dict[str, float]:
    """A small Dopri5 solve along a frozen grid, tolerance 0.001, forward and backward: compiled to one graph or not."""
    work = Work("small", 0.001)
    eager = work.replay()
    with torch.no_grad():
        grid = solve(work.field, work.y0, control=BatchCoupled(rtol=0.001, atol=0.001, end="clip")).grid
    control = Replay(grid=grid)

    def run(x: Tensor, z: Tensor) -> Pair:
        return solve(work.field, (x, z), control=control).y1  # pyright: ignore

    fast = torch.compile(run, fullgraph=True)
    ways = {"eager": eager, "compiled": lambda: fast(*work.y0)}
    apart = max(float((a - b).detach().abs().max()) for a, b in zip(fast(*work.y0), eager(), strict=True))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(21):
        for name, way in ways.items():
            spent = sum(work.forward_backward(way))
            if turn:
                times[name].append(1e3 * spent)
    out = {name: statistics.median(spent) for name, spent in times.items()}
    return {**out, "ratio": out["compiled"] / out["eager"], "largest difference": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small cases only")
    parser.add_argument("--memory", nargs=3, metavar=("CASE", "TOLERANCE", "ROW"), help="measure one row; internal")
    chosen = parser.parse_args()
    if chosen.memory:
        memory_child(chosen.memory[0], float(chosen.memory[1]), chosen.memory[2])
        return
    old = HERE / "solvers.json"
    results: dict[str, Any] = json.loads(old.read_text()) if old.exists() else {"times": {}, "measured": {}}
    results["method"] = DOPRI5.name
    results[title := "ms per sample by batch, own steps"] = by_batch()
    save(results, title, 5)
    for case in ROUNDS:
        for tolerance in () if chosen.quick and case in ("large", "medium") else TOLERANCES:
            results["times"][title := f"{case}, tolerance {tolerance}"] = measure(case, tolerance)
            save(results, title, ROUNDS[case])
    results[title := "compiled, forward and backward"] = compiled()
    save(results, title, 20)
    if chosen.quick:
        return
    results[title := "large, tolerance 0.1, over the field as it stands"] = beyond_the_floor()
    save(results, title, 2)
    named = ["floor", *AIMED, "ours, checkpointed", *filter(importlib.util.find_spec, PEERS)]
    memories = {str(tolerance): {name: memory("large", tolerance, name) for name in named} for tolerance in TOLERANCES}
    results[title := "memory, large, MiB"] = memories
    save(results, title, 1)


def save(results: dict[str, Any], title: str, rounds: int) -> None:
    """Write what there is so far, with the circumstances of the table that was just measured."""
    packages = ["torch", *filter(importlib.util.find_spec, PEERS)]
    results.setdefault("measured", {})[title] = {
        "date": date.today().isoformat(),
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, of which one thread is used",
        "versions": ", ".join(f"{name} {_version(name)}" for name in packages),
    }
    (HERE / "solvers.json").write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "solvers.md").write_text(table(results))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a copy without its metadata
        return "of unknown version"


def _circumstances(results: dict[str, Any], title: str) -> str:
    known = results["measured"].get(title)
    if known is None:
        return "Measured before circumstances were recorded."
    return (
        f"n = {known['rounds']} rounds, {known['date']}, load {known['load']}; {known['machine']}; {known['versions']}."
    )


def flatness(rows: dict[str, float]) -> str:
    """How far the cost for each sample depends on the batch, for the solve, for the bare field, and for their ratio."""
    own = {name: value for name, value in rows.items() if "floor" not in name}
    bare = {name: rows[f"{name}, floor"] for name in own if f"{name}, floor" in rows}

    def factor(values: list[float]) -> float:
        return max(values) / min(values)

    spread = factor(list(own.values()))
    verdict = "met" if spread <= 1.1 else "missed"
    text = f"Target: flat from 16 to 512 (factor 1.1 at most). Factor {spread:.1f}: {verdict}."
    if bare:
        over = [own[name] / bare[name] for name in bare]
        text += f" The bare field has factor {factor(list(bare.values())):.1f}; over it the solve costs "
        text += f"{min(over):.2f} to {max(over):.2f}, factor {factor(over):.2f}."
    return text


def against_torchdiffeq(case: str, rows: dict[str, Any]) -> list[str]:
    """How many times faster the same solve is here, and whether that is what was aimed at."""
    if "torchdiffeq" not in rows:
        return []
    factor = rows["torchdiffeq"]["ratio_to_floor"] / rows["ours, torchdiffeq's end"]["ratio_to_floor"]
    goal = FASTER.get(case)
    verdict = "" if goal is None else f" (at least {goal} × aimed at: {'met' if factor >= goal else 'missed'})"
    return [f"With the same end of the interval {factor:.1f} × faster than torchdiffeq{verdict}.", ""]


def memory_against_torchdiffeq(memories: dict[str, dict[str, float]]) -> str:
    """What the same solve takes of torchdiffeq's extra memory, at each tolerance."""
    known = {tol: rows for tol, rows in memories.items() if "torchdiffeq" in rows}
    shares = {tol: rows["ours, torchdiffeq's end"] / rows["torchdiffeq"] for tol, rows in known.items()}
    verdict = "met" if max(shares.values(), default=1.0) <= MEMORY else "missed"
    told = " and ".join(f"{share:.2f} at tolerance {tol}" for tol, share in shares.items())
    return f"Of torchdiffeq's extra memory: {told} (at most {MEMORY} aimed at: {verdict})."


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Solvers: cost against the bare field and the peers", ""]
    lines += [f"`python benchmarks/solvers.py`, which explains the rows; {results['method']} on [0, 1].", ""]
    lines += [
        "Checkpointed first finds its grid without a graph: half of its evaluations have no backward pass, so its last "
        "column is too kind. It calls the field twice in any case, and at two or three steps saves no memory for that.",
        "",
    ]
    for title, rows in results["times"].items():
        case = title.split(",")[0]
        shape = "×".join(map(str, (*SHAPES[case], SHAPES[case][-1])))
        lines += [f"## {title}", "", f"Two parts of {shape}. {_circumstances(results, title)}", ""]
        lines += [HEAD, "| --- | --: | --: | --: | --: | --: | --: |"]
        for name, r in rows.items():
            goal = TARGETS.get(case) if name in AIMED else None
            verdict = "" if goal is None else f"≤ {goal:.2f} {'met' if r['ratio_to_floor'] <= goal else 'missed'}"
            numbers = f"{r['evaluations']} | {r['forward_ms']:.1f} | {r['backward_ms']:.1f} | {r['ratio_to_floor']:.2f}"
            own = r.get("ratio_to_own_floor", r["ratio_to_floor"] * rows["floor"]["evaluations"] / r["evaluations"])
            lines.append(f"| {name} | {numbers} | {verdict} | {own:.2f} |")
        lines += ["", *against_torchdiffeq(case, rows)]
    for title, rows in results.items():
        if not isinstance(rows, dict) or title in ("times", "measured"):
            continue
        lines += [f"## {title}", "", _circumstances(results, title), ""]
        if "by batch" in title:
            lines += [flatness(rows), ""]
        if "memory" in title:
            lines += [memory_against_torchdiffeq(rows), ""]
        lines += ["| | |", "| --- | --: |"]
        flat = {f"{a}, {b}": c for a, v in rows.items() for b, c in v.items()} if "memory" in title else rows
        lines += [f"| {name} | {value:.3g} |" for name, value in flat.items()] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
