"""Does an audit call an honest net obfuscated? Plain convolutional nets of the digits, trained to a small loss.

    .venv/bin/python benchmarks/honest_nets.py

Writes honest_nets.json beside itself: for each seed the verdict and what each cause's intervention broke.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

import verigrad
from verigrad.data.load import load_data
from verigrad.models.networks.small import SmallConvNet
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

N, EPS, SEEDS = 200, 0.12, (0, 1, 2)
RECIPE = {"epochs": 60, "optimiser": "adam", "lr": 2e-3}


def run(seed: int) -> dict[str, object]:
    """One net, audited with the default claim (PGD-20, random start, last iterate) and budget."""
    data = load_data("digits", "train")
    net = initialised(SmallConvNet, seed)
    train(net, data.x, data.y, Natural(), Recipe(**RECIPE, seed=seed))
    found = verigrad.audit(net, load_data("digits", n=N), verigrad.Linf(eps=EPS)).summary
    causes = {one["name"]: {"broke": one["witnesses"], "confirmed": one["confirmed"]} for one in found["causes"]}
    return {"seed": seed, **{key: found[key] for key in ("verdict", "claimed", "found")}, "causes": causes}


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = {"data": "digits", "n": N, "eps": EPS, "recipe": RECIPE, "torch": torch.__version__}
    about["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, 1 thread"
    rows = [run(seed) for seed in SEEDS]
    Path(__file__).with_suffix(".json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
