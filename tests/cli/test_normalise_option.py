"""`--normalise`: the model in the ledger is the normalised one, and `verigrad verify` builds it again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from shell import files

from verigrad.ledger.store import Ledger
from verigrad.models.networks.small import SmallConvNet

# Expects its input normalised by 0.5/0.25: bright is beyond 0, which no image in [0, 1] falls below.
CENTRED = """
import torch
from torch import nn

class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(8.0))

    def forward(self, x):
        lead = self.slope * x.mean((1, 2, 3))
        return torch.stack([-lead, lead], 1)
"""
DATA = ("--data", "grey.npz", "--threat", "linf:0.02")


@pytest.fixture(scope="module")
def grey(workplace: Path) -> Path:
    (workplace / "centred.py").write_text(CENTRED)
    x = np.random.default_rng(1).random((40, 1, 4, 4), dtype=np.float32)
    np.savez(workplace / "grey.npz", x=x, y=(x.mean((1, 2, 3)) > 0.5).astype(np.int64))
    return workplace


def clean(folder: Path) -> float:
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        rows = ledger.samples()
        return sum(row.prediction == row.label for row in rows) / len(rows)


def test_an_attack_is_on_the_normalised_model_and_is_verified(verigrad, grey: Path, tmp_path: Path) -> None:
    said = verigrad(
        "attack", "centred:Centred", *DATA, "--attacks", "fgsm", "--normalise", "0.5/0.25", "--out", tmp_path
    )
    assert said.code == 0, said.err
    assert clean(tmp_path) == 1.0
    with Ledger.read(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.identity["model"] == 'normalised:mean=(0.5),module="centred:Centred",std=(0.25)'
        assert ledger.witnesses()
    said = verigrad("verify", tmp_path)
    assert (said.code, said.err) == (0, "")


def test_an_audit_is_of_the_normalised_model_and_is_verified(verigrad, grey: Path, tmp_path: Path) -> None:
    arguments = ("audit", "centred:Centred", *DATA, "--claim", "1", "--out", tmp_path)
    said = verigrad(*arguments, "--normalise", "0.5/0.25")
    assert said.code == 0, said.err
    assert clean(tmp_path) == 1.0
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["verdict"] == "overstated"
    assert summary["title"] == "centred:Centred"
    said = verigrad("verify", tmp_path, "--seal", summary["seal"])
    assert (said.code, said.err) == (0, "")
    for other in ((), ("--normalise", "0.5/0.26")):
        assert "model" in verigrad(*arguments, *other).error
    assert verigrad(*arguments, "--normalise", " 0.50 / .25").code == 0, "the same numbers are the same audit"


def test_weights_are_for_the_model_inside(verigrad, grey: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        save_file(SmallConvNet(channels=4).state_dict(), tmp_path / "w.safetensors")
    out = tmp_path / "run"
    said = verigrad(
        *("attack", "small-conv:channels=4", "--weights", tmp_path / "w.safetensors", "--data", "digits", "--n", 20),
        *("--threat", "linf:0.1", "--attacks", "fgsm", "--normalise", "0.3/0.35", "--out", out),
    )
    assert said.code == 0, said.err
    said = verigrad("verify", out)
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("command", ["attack", "audit"])
@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"--normalise": "0.5"}, "must be MEAN/STD"),
        ({"--normalise": ""}, "must be MEAN/STD"),
        ({"--normalise": "0.5/0"}, "'std' positive"),
        ({"--normalise": "1,2,3/1,2"}, "Got 3 and 2"),
        ({"--normalise": "1,2,3/1,2,3"}, "normalises 3 channels, but the images have 1"),
        ({"model": 'normalised:mean=0.5,std=0.2,module="centred:Centred"'}, "normalises its input already"),
        ({"model": "normalised:mean=0.5,std=0.2"}, "A normalised model is written"),
        ({"model": "small-conv"}, "would have random weights"),
        ({"model": "sonet:channels=8"}, "would have random weights"),
        ({"model": "sonet:channel=8"}, "Did you mean 'channels'"),
        ({"model": "timm:"}, "timm"),
        ({"model": "hf:nowhere"}, "There is no config.json in 'nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    verigrad, grey: Path, command: str, change: dict[str, str], part: str
) -> None:
    options = {"--data": "grey.npz", "--threat": "linf:0.1", "--normalise": "0.5/0.25", "--out": "refused", **change}
    if command == "attack":
        options["--attacks"] = "fgsm"
    model = options.pop("model", "centred:Centred")
    before = files(grey)
    said = verigrad(command, model, *(word for option in options.items() for word in option))
    assert part in said.error
    assert said.out == ""
    assert files(grey) == before
