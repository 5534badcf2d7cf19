"""`verigrad train` makes a checkpoint that the other commands take."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import files

import verigrad as face
from verigrad.models.loading import weights_hash

COMMON = ("train", "--model", "small-conv:channels=4", "--data", "digits", "--n", 200, "--batch", 50, "--epochs", 2)


def test_a_trained_model_can_be_attacked(verigrad, tmp_path: Path) -> None:
    said = verigrad(*COMMON, "--out", tmp_path / "model", "--validation", 40, "--schedule", "steps:at=(0.5)")
    assert said.code == 0, said.err
    assert "epoch 2: cross_entropy" in said.out
    assert "validation accuracy" in said.out
    assert files(tmp_path) == {"model", "model/model.json", "model/model.safetensors"}
    attack = ("attack", tmp_path / "model", "--data", "digits", "--n", 20, "--threat", "linf:0.1", "--attacks", "fgsm")
    assert "worst case" in verigrad(*attack).out


def test_the_same_command_gives_the_same_weights(verigrad, tmp_path: Path) -> None:
    objective = "adversarial:threat=linf(eps=0.1),attack=pgd(steps=1,keep=last)"
    for name in ("one", "two"):
        assert verigrad(*COMMON, "--objective", objective, "--out", tmp_path / name).code == 0
    assert verigrad(*COMMON, "--objective", objective, "--out", tmp_path / "three", "--seed", 1).code == 0
    one, two, three = (weights_hash(face.load_model(str(tmp_path / name))) for name in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"--model": "smal-conv"}, "Did you mean 'small-conv'?"),
        ({"--model": "scaled-logits:module=small-conv"}, "needs a value for scale"),
        ({"--model": "small-conv:in_channels=3"}, "(100, 1, 8, 8)"),
        ({"--model": "small-conv:classes=9"}, "9 classes"),
        ({"--objective": "adversarial"}, "needs a value for threat"),
        ({"--objective": "adversarial:threat=linf(eps=-1)"}, "Got -1"),
        ({"--schedule": "cosine"}, "no schedule 'cosine'"),
        ({"--epochs": "0"}, "at least 1"),
        ({"--lr": "0"}, "positive"),
        ({"--lr": "1e30", "--batch": "10"}, "Lower the 'lr'"),
        ({"--validation": "100"}, "leaves none"),
        ({"--data": "nothing"}, "no data 'nothing'"),
        ({"--out": "."}, "is there already"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    verigrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {
        "--model": "small-conv:channels=4",
        "--data": "digits",
        "--n": "100",
        "--epochs": "1",
        "--out": "m",
        **change,
    }
    assert part in verigrad("train", *(word for option in options.items() for word in option)).error
    assert files(tmp_path) == set()
