"""How the memory of a long solve grows with its steps: all states kept, checkpoints, and the adjoint.

Work: a SONet field, LeakyReLU(conv 3×3) and minus its transpose, on 64 samples of two parts of 16×8×8, Dopri5 by equal
steps on [0, 100], forward and backward to the start and the kernel. Memory is the growth of the peak resident set over
one such pass, each in a fresh process after a pass of one step; the exponent is the slope of the logarithms from the
first row to the last. Freed pages are given back at once (MALLOC_TRIM_THRESHOLD_=0), so that the peak is what was held.

    python benchmarks/long_solves.py     # renews benchmarks/long_solves.json and benchmarks/long_solves.md
"""

import json
import math
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from verigrad.solvers import Adjoint, Checkpointed, Direct, Fixed, Gradient, solve

HERE = Path(__file__).resolve().parent
STEPS = (64, 128, 256, 512, 1024)
MODES = ("Direct", "Checkpointed", "Adjoint")


def one_pass(mode: str, steps: int) -> None:
    torch.manual_seed(0)
    kernel = (0.02 * torch.randn(16, 16, 3, 3)).requires_grad_()
    y0 = tuple(torch.randn(64, 16, 8, 8).requires_grad_() for _ in range(2))

    def field(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, z = y
        return (
            F.leaky_relu(F.conv2d(z, kernel, padding=1), 0.01),
            F.leaky_relu(-F.conv_transpose2d(x, kernel, padding=1), 0.01),
        )

    gradients: dict[str, Gradient] = {
        "Direct": Direct(),
        "Checkpointed": Checkpointed(),
        "Adjoint": Adjoint(rtol=0.1, atol=0.1, parameters=(kernel,)),
    }
    y1 = solve(field, y0, t1=100.0, control=Fixed(steps=steps), gradient=gradients[mode]).y1
    torch.autograd.grad(sum(part.sum() for part in y1), (*y0, kernel))  # pyright: ignore


def peak() -> float:
    """MiB of the highest resident set of this process."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def child(mode: str, steps: int) -> None:
    torch.set_num_threads(1)
    one_pass(mode, 1)
    before, start = peak(), time.thread_time()
    one_pass(mode, steps)
    print(json.dumps([peak() - before, time.thread_time() - start]))


def main() -> None:
    if len(sys.argv) == 3:
        child(sys.argv[1], int(sys.argv[2]))
        return
    rows: dict[str, dict[str, list[float]]] = {mode: {} for mode in MODES}
    for mode, steps in track([(mode, steps) for mode in MODES for steps in STEPS], description="long solves"):
        run = subprocess.run(
            [sys.executable, __file__, mode, str(steps)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "0"},
        )
        rows[mode][str(steps)] = [round(value, 1) for value in json.loads(run.stdout)]
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread; torch {torch.__version__}"
    results = {"rows": rows, "machine": machine, "date": date.today().isoformat()}
    (HERE / "long_solves.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = ["# Long solves: memory against steps", ""]
    lines += [f"`python benchmarks/long_solves.py`, which says what is measured; {results['date']}, {machine}.", ""]
    lines += [f"| MiB (seconds) | {' | '.join(map(str, STEPS))} | exponent |", f"| --- |{' --: |' * (len(STEPS) + 1)}"]
    for mode, row in rows.items():
        cells = " | ".join(f"{memory:.0f} ({seconds:.1f})" for memory, seconds in row.values())
        first, last = (row[str(n)][0] for n in (STEPS[0], STEPS[-1]))
        slope = math.log(max(last, 0.1) / max(first, 0.1)) / math.log(STEPS[-1] / STEPS[0])
        lines.append(f"| {mode} | {cells} | {slope:.2f} |")
    (HERE / "long_solves.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
