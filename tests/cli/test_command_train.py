"""`verigrad train` makes a checkpoint that the other commands take."""

from __future__ import annotations

import json
import sys
import types
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
    model = {"model.json", "model.safetensors"}
    assert files(tmp_path / "model") == {*model, "metrics.jsonl", "best", *(f"best/{name}" for name in model)}
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
        ({"--algorithm": "x", "--objective": "natural"}, "exclude each other"),
        ({"--time-limit": "soon"}, "--time-limit must be a length of time such as 90s, 10m or 2h. Got 'soon'"),
        ({"--time-limit": "-3m"}, "Got '-3m'"),
        ({"--crop": "-1"}, "must not be negative"),
        ({"--watch": "linf:eps=0.1"}, "--watch needs samples held out"),
        ({"--device": "abacus"}, "--device must be cpu or cuda. Got 'abacus'"),
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


def test_a_folder_with_something_else_is_left_alone(verigrad, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("all of it")
    assert "is there already" in verigrad(*COMMON, "--out", tmp_path / "m").error
    assert files(tmp_path) == {"m", "m/thesis.txt"}
    (tmp_path / "file").write_text("")
    assert "is there already" in verigrad(*COMMON, "--out", tmp_path / "file").error


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


FULL = (
    *COMMON[:-1],
    4,
    *("--objective", "adversarial:threat=linf(eps=0.1),attack=pgd(steps=1,keep=last)", "--validation", 50),
    *("--optimiser", "adamw", "--lr", 0.003, "--weight-decay", 0.1, "--schedule", "one-cycle", "--clip", 1),
    *("--mean-weights", 0.9, "--crop", 1, "--cutout", 2, "--fill", 0.5, "--channels-last"),
)


def test_a_time_limit_stops_and_the_same_command_goes_on(verigrad, tmp_path: Path) -> None:
    assert verigrad(*FULL, "--out", tmp_path / "whole").code == 0
    command = (*FULL, "--out", tmp_path / "parts")
    said = verigrad(*command, "--time-limit", "0.001s")
    assert said.code == 0
    assert said.out == "stopped at the time limit after step 1. The same command goes on from there.\n"
    assert files(tmp_path / "parts") == {"training.safetensors"}
    stops = [verigrad(*command, "--time-limit", "0.001s").out.split()[7] for _ in range(5)]
    assert stops == ["2.", "3.", "4.", "5.", "6."]
    left = {"metrics.jsonl", "best", "best/model.json", "best/model.safetensors"}
    assert files(tmp_path / "parts") == left | {"training.safetensors", "training.safetensors.previous"}
    # What a kill between the report of an epoch and its state leaves behind.
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write(f'{json.dumps({"epoch": 3})}\n{{"epo')
    (tmp_path / "parts" / ".best.0123").mkdir()
    assert "epoch 4: " in verigrad(*command).out
    assert files(tmp_path / "parts") == left | {"model.json", "model.safetensors"}
    for inside in ("", "best"):
        one, other = (weights_hash(face.load_model(str(tmp_path / name / inside))) for name in ("whole", "parts"))
        assert one == other
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    assert [line["epoch"] for line in parts] == [1, 2, 3, 4]
    for line in (*whole, *parts):
        assert line.pop("seconds") > 0
    assert whole == parts
    assert set(whole[0]) == {"epoch", "train", "validation", "robust", "lr"}
    assert 0 <= whole[-1]["robust"] <= whole[-1]["validation"] <= 1
    assert "is there already" in verigrad(*command).error


def test_a_collapse_is_told_at_once(verigrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verigrad.training import epochs
    from verigrad.training.watching import Accuracies

    robust = iter([0.5, 0.1])
    monkeypatch.setattr(epochs, "validate", lambda *a, **k: Accuracies(0.9, next(robust)))
    said = verigrad(*COMMON, "--validation", 20, "--out", tmp_path / "m")
    assert said.code == 0
    assert "warning: epoch 2: accuracy under the quick attack fell to 0.1000" in said.err
    assert said.err.count("warning") == 1


def test_without_tensorboard_one_line_says_what_to_install(verigrad, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'verigrad[track]'" in verigrad(*COMMON, "--track", "--out", tmp_path / "m").error
    assert files(tmp_path) == set()


def test_with_tensorboard_every_number_is_told(verigrad, tmp_path: Path, monkeypatch) -> None:
    told = {}

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "m" / "tensorboard"), 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told[name, step] = value

        def flush(self) -> None: ...

        def close(self) -> None:
            told["closed"] = True

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert verigrad(*COMMON, "--track", "--validation", 20, "--out", tmp_path / "m").code == 0
    assert told.pop("closed")
    names = {"train/cross_entropy", "train/accuracy", "validation/clean", "lr", "seconds"}
    assert set(told) == {(name, epoch) for name in names for epoch in (1, 2)}
    assert told["validation/clean", 2] == metrics(tmp_path / "m")[1]["validation"]
