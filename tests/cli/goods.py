"""What is in the shop, a user's working directory: own models, weights and data; and a look at an audit."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from shell import files

from verigrad.data.load import load_data

NETS = '''
import torch
from torch import nn

class Means(nn.Linear):
    """A linear classifier of the digits: the nearest class mean, in units in which cross-entropy does not saturate."""

    def __init__(self, scale=1.0):
        super().__init__(64, 10)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x.flatten(1))

class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Means()

    def forward(self, x):
        return self.changed(x)

def masked():
    return Means(scale=1000.0)

class Wrong(Means):
    def forward(self, x):
        return -super().forward(x)

class Two(Means):
    def forward(self, x):
        return super().forward(x)[:, :2]

class Double(Means):
    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x):
        return super().forward(x.double())

class Brain(Means):
    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, x):
        return super().forward(x.bfloat16())

class Constant(nn.Module):
    def forward(self, x):
        return torch.arange(10.0).flip(0).expand(len(x), 10)

class Random(Means):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))

class Mates(Means):
    def forward(self, x):
        logits = super().forward(x)
        return logits + 2 * logits.mean(0)

class NanFar(Means):
    """Finite on the data and near them, NaN beyond a grey level of 0.5 that no image has: no attack gets through."""

    def forward(self, x):
        off = ((x * 16 - (x * 16).round()).abs() > 0.3).any(3).any(2)
        return torch.where(off, torch.nan, super().forward(x))

class RootGradient(Means):
    """Its logits are finite, its gradient 0 / 0."""

    def forward(self, x):
        return super().forward(x) + torch.sqrt((x - x).square().sum((1, 2, 3)))[:, None]

class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.BatchNorm2d(1), Means())
        self.train()

class Twenty(Means):
    def forward(self, x):
        if len(x) != 20:
            raise RuntimeError(f"a batch of 20 is needed\\nnot {len(x)}")
        return super().forward(x)

class InPlace(Means):
    def forward(self, x):
        return super().forward(x.mul_(0.5))

class Uncopied(Means):
    def __init__(self):
        super().__init__()
        self.stream = (i for i in range(3))

class Inference(Means):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)

class Pair(Means):
    def forward(self, x):
        return super().forward(x), x

class Probabilities(Means):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Counts(Means):
    """Votes, whole numbers."""

    def forward(self, x):
        return super().forward(x).round().long()

class Deserter(Means):
    """Ends the process, as a success, once an attack has moved the images."""

    def forward(self, x):
        if (x * 16).frac().any():
            raise SystemExit(0)
        return super().forward(x)

class NanWeights(Means):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.bias, torch.nan)

class NanOnTheLast(Means):
    def forward(self, x):
        return torch.where(x.flatten(1).sum(1, keepdim=True) == LAST, torch.nan, super().forward(x))

LAST = -1.0

def broken():
    raise ValueError("no such thing\\nas this")

def leaves():
    raise SystemExit(0)

number = 3
'''
RUN = [sys.executable, "-c", "from verigrad.cli.main import run; run()"]
LISTED = {"verdict", "clean", "claimed", "found", "gap", "n", "interval", "causes", "attacks", "health", "identity"}
COLUMNS = {"accuracy", "forwards", "backwards", "seconds"}
WEIGHTS = ("--weights", "means.safetensors")
SMALL = ("--data", "digits.npz", "--threat", "linf:0.1", "--n", 24)
HONEST = ("audit", "nets:Means", *WEIGHTS)


def weights() -> dict[str, torch.Tensor]:
    """Of the linear classifier by nearest class mean: argmin |x - m|² = argmax (x·m - |m|²/2)."""
    data = load_data("digits", "train")
    means = torch.stack([data.x[data.y == label].flatten(1).mean(0) for label in range(10)])
    return {"weight": 2 * means, "bias": -means.square().sum(1)}


def write(folder: Path) -> None:
    (folder / "nets.py").write_text(NETS)
    state = weights()
    save_file(state, folder / "means.safetensors")
    torch.save(state, folder / "means.pt")
    save_file({name: 1.01 * value for name, value in state.items()}, folder / "other.safetensors")
    data = load_data("digits", n=100)
    np.savez(folder / "digits.npz", x=data.x.numpy(), y=data.y.numpy())
    np.savez(folder / "parity.npz", x=data.x.numpy(), y=data.y.numpy() % 2)
    for number, (x, y) in enumerate(zip(data.x[:24], data.y[:24], strict=True)):
        (folder / "classes" / f"digit {y}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((x[0] * 255).round().byte().numpy()).save(folder / "classes" / f"digit {y}" / f"{number}.png")


def read(folder: Path | str) -> dict[str, Any]:
    """audit.json, in which every number is finite."""

    def fail(constant: str) -> None:
        raise AssertionError(f"{constant} in audit.json")

    return json.loads((Path(folder) / "audit.json").read_text(encoding="utf-8"), parse_constant=fail)


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    return summary | {"attacks": [{k: v for k, v in row.items() if k != "seconds"} for row in summary["attacks"]]}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if (folder / name).is_file()}


def edit(folder: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    with db:
        db.execute(statement, values)
    db.close()
