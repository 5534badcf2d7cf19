"""What certificates cost: forwards of randomised smoothing, their rate, extreme value fits, bounds from gradients.

*Forwards.* One convolution and a linear layer, trained on the digits (8×8) under noise of sigma 0.25; 100 test images.
The reference is the protocol of Cohen et al. 2019 at alpha 0.001: 100 noisy copies to choose the class, 100,000 to
certify it. The votes of all 100,100 copies of each image are drawn once, by the certificate's own streams, and every
test is the certificate itself, given these votes again: what differs between rows is only when it stops asking.

*Rate.* Noisy images a second, drawn, classified and counted by the certificate, over the rate of the bare model on
images that lie ready. The two run in turn, on one thread, in process CPU seconds, and the figure is the median of the
rounds. `one by one` is the loop as it is often written: noise in a tensor of its own, votes counted in Python. bf16 is
autocast.

*Fits* and *bounds* are process CPU seconds too; a gradient is one forward and one backward pass of 1,000 random images
of 1×28×28 by a small conv net.

*auto_LiRPA*, where it can be imported, verifies the same images as the certificate `interval`: the share of 32 digits
that each proves at three radii, and the time of one bound, in float64 for ours and in float32 for auto_LiRPA's. It is
no dependency: point PYTHONPATH at it. Release 0.3 runs on numpy 2 and torch 2.13 once four lines are changed: `isin`
comes from numpy, `_optimize_graph` from torch.onnx._internal.torchscript_exporter.utils, the opset is set in GLOBALS of
`_globals` beside it, and attribute k of a node is read by `getattr(n, n.kindOf(k))(k)`.

    python benchmarks/certificates.py            writes certificates.json and certificates.md beside this file
    python benchmarks/certificates.py --only savings    or rates, timed, peers; the rest stays as it is in the JSON
    python benchmarks/certificates.py --rounds 1    instead of 5 for rates and times
    python benchmarks/certificates.py --quick    5 images, 2,000 copies, one round, nothing written
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from certificates_bounds import SHARES_AT, bounds, fits, peers
from certificates_smoothing import RADII, SIGMA, rate, savings
from rich.console import Console
from sklearn.datasets import load_digits
from torch import Tensor, nn

from verigrad.models.networks.small import SmallConvNet

HERE = Path(__file__).resolve().parent
BOUND_ROUNDS = 3


def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small conv net trained on 1,200 digits under noise, and the other images in an order of their own."""
    flat, target = load_digits(return_X_y=True)
    torch.manual_seed(0)
    order = torch.randperm(len(flat))
    x = torch.tensor(flat, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(target)[order]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(20):
        for rows in torch.randperm(1200).split(50):
            adam.zero_grad()
            F.cross_entropy(model(x[rows] + SIGMA * torch.randn_like(x[rows])), y[rows]).backward()
            adam.step()
    return model.eval(), x[1200:], y[1200:]


def page(found: dict[str, Any]) -> str:
    machine = found["machine"]
    n, images = found["n"], found["images"]
    lines = [
        "# The cost of certificates",
        "",
        "Written by `python benchmarks/certificates.py`, which says what is measured. One thread of a "
        f"{machine['cores']}-core {machine['kind']} CPU, torch {machine['torch']}, {machine['date']}.",
        "",
        f"## Forwards of smoothing, {images} images of the digits, sigma {SIGMA}, n = {n:,}",
        "",
        "| radii | test | forwards an image (median) | times fewer | certified | answers that differ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["savings"]:
        radii = ", ".join(f"{r:g}" for r in row["radii"]) or "the largest"
        certified = ", ".join(f"{share:.2f}" for share in row["certified"])
        differ = ", ".join(map(str, row["differ"]))
        forwards = f"{row['forwards']:,.0f} ({row['median']:,.0f})"
        lines.append(f"| {radii} | {row['test']} | {forwards} | {row['fewer']:.1f} | {certified} | {differ} |")
    lines += [
        "",
        f"Where the largest radius is asked for, `certified` is at {', '.join(f'{r:g}' for r in RADII)}, and what "
        "differs are radii and predicted classes.",
        "",
        "## Rate",
        "",
        "| model | images | batch | bare, images/s | ours / bare (range) | one by one / bare | bf16 / ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['model']} | {r['images']} | {r['batch']} | {r['bare']:,.0f} | "
        f"{r['ours']:.3f} ({r['low']:.3f} to {r['high']:.3f}) | {r['one_by_one']:.3f} | {r['bf16']:.2f} |"
        for r in found["rates"]
    ]
    told = {key: f"{rounds} round{'s' * (rounds > 1)}" for key, rounds in found["rounds"].items()}
    lines += ["", f"{told.get('rates', 'Not measured')}; bf16 in hardware: {machine['bf16']}.", ""]
    lines += ["## Fits and bounds from gradients", ""]
    lines += ["| what | CPU s | |", "| --- | --- | --- |"]
    lines += [f"| {row['what']} | {row['seconds']:.3f} | {row['units']:.1f} {row['unit']} |" for row in found["timed"]]
    lines += ["", f"{told.get('timed', '5 rounds')}; of the bounds {BOUND_ROUNDS} at most."]
    eps = ", ".join(f"{e:g}" for e in SHARES_AT)
    lines += ["", "## Interval bounds beside auto_LiRPA", ""]
    lines += [f"| tool | proved at Linf {eps} | CPU ms an image |", "| --- | --- | --- |"]
    lines += [
        f"| {row['tool']} | {', '.join(f'{s:.3f}' for s in row['shares'])} | {1000 * row['seconds']:.2f} |"
        for row in found["peers"]
    ]
    alone = len(found["peers"]) == 1
    lines += ["", "auto_LiRPA could not be imported." if alone else "How auto_LiRPA was made to run: see the program."]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return {
        "kind": platform.machine().replace("x86_64", "x86"),
        "cores": os.cpu_count(),
        "bf16": "yes" if "avx512_bf16" in flags or "amx_bf16" in flags else "no",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("savings", "rates", "timed", "peers"))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds, images, n = (1, 5, 2000) if chosen.quick else (chosen.rounds, 100, 100_000)
    model, x, y = digits()
    small = SmallConvNet(channels=8).eval()
    wide = SmallConvNet(in_channels=3, channels=32).eval()
    sections: dict[str, Callable[[], list[Any]]] = {
        "savings": lambda: savings(model, x[:images], y[:images], n),
        "rates": lambda: [
            rate("small-conv:channels=8", small, (1, 28, 28), 200, rounds),
            rate("small-conv:channels=32", wide, (3, 32, 32), 200, rounds),
        ],
        "timed": lambda: [*fits(rounds), *bounds(min(rounds, BOUND_ROUNDS))],
        "peers": lambda: peers(model, x[:32], y[:32]),
    }
    target = HERE / "certificates.json"
    measured = {key: [asdict(row) for row in work()] for key, work in sections.items() if chosen.only in (None, key)}
    # Read only now: sections may be measured side by side.
    before = json.loads(target.read_text()) if chosen.only and not chosen.quick and target.exists() else {}
    found = {key: [] for key in sections} | before | measured | {"machine": machine(), "n": n, "images": images}
    found["rounds"] = before.get("rounds", {}) | dict.fromkeys(measured.keys() & {"rates", "timed"}, rounds)
    Console().print(page(found), markup=False)
    if not chosen.quick:
        target.write_text(json.dumps(found, indent=1) + "\n")
        target.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
