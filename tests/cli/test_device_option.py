"""`--device` names where a command computes, and what is not there is told before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goods import SMALL
from shell import Shell

from verigrad.cli.device import chosen_device, judging_device
from verigrad.core.errors import BadInput

MODEL = ("nets:Means", "--weights", "means.safetensors")
COMMANDS = {
    "audit": (*MODEL, *SMALL, "--out", "new"),
    "attack": (*MODEL, "--data", "digits.npz", "--threat", "linf:0.1", "--attacks", "fgsm", "--out", "new"),
    "certify": (*MODEL, "--data", "digits.npz", "--certificate", "interval", "--out", "new"),
    "inspect": (*MODEL, "--data", "digits.npz"),
    "train": ("--model", "small-conv", "--data", "digits", "--out", "new"),
}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_the_processor(wanted: str) -> None:
    assert chosen_device(wanted) == torch.device("cpu")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("wanted", "local", "index"), [("auto", 0, 0), ("cuda", 0, 0), ("cuda", 1, 1), ("cuda:1", 0, 1), ("cuda:0", 1, 0)]
)
def test_a_gpu(wanted: str, local: int, index: int) -> None:
    assert chosen_device(wanted, local=local) == torch.device("cuda", index)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_judges_rounds_nothing_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("deterministic", False), ("benchmark", True), ("allow_tf32", True)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    judging_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    judging_device("cuda")
    now = torch.backends.cudnn
    assert (now.deterministic, now.benchmark, now.allow_tf32) == (True, False, False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", ["", "gpu", "mps", "cuda:", "cuda:x", "cuda:-1", "cpu:0"])
def test_other_names(wanted: str) -> None:
    with pytest.raises(BadInput, match="--device must be cpu or cuda"):
        chosen_device(wanted)


@pytest.mark.usefixtures("two_gpus")
def test_one_gpu_too_far() -> None:
    with pytest.raises(BadInput, match="the GPUs here are cuda:0 to cuda:1"):
        chosen_device("cuda:2")


@pytest.mark.usefixtures("no_gpu", "shop")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_gpu_that_is_not_here_begins_nothing(verigrad: Shell, command: str) -> None:
    said = verigrad(command, *COMMANDS[command], "--device", "cuda")
    assert said.error == "--device cuda: PyTorch finds no GPU here. Leave it out, or give cpu."
    assert (said.code, said.out) == (2, "")
    assert not Path("new").exists()
    assert verigrad("verify", "nowhere", "--device", "cuda").error == said.error


@pytest.mark.usefixtures("shop")
def test_one_run_is_of_one_device(verigrad: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ("attack", *COMMANDS["attack"][:-1], tmp_path / "run")
    monkeypatch.setattr("verigrad.auditing.identity.behaviour_hash", lambda *_: "the same")
    assert verigrad(*run, "--device", "cpu").code == 0
    monkeypatch.setattr("verigrad.auditing.identity.device_of", lambda _: torch.device("cuda", 0))
    said = verigrad(*run)
    assert said.code == 2
    assert 'device is "cpu" there and "cuda:0" here' in said.error


@pytest.mark.gpu
@pytest.mark.usefixtures("shop")
def test_a_gpu_computes_and_what_it_found_stands(verigrad: Shell, tmp_path: Path) -> None:
    for command in ("audit", "attack", "certify"):
        run = (command, *COMMANDS[command][:-1], tmp_path / command)
        said = verigrad(*run, "--device", "cuda")
        assert said.code == 0, said.err
        assert verigrad(*run, "--device", "cpu").code == 2
    assert verigrad("inspect", *COMMANDS["inspect"], "--device", "cuda").code == 0
    for device in ("cuda", "cpu"):
        assert verigrad("verify", tmp_path / "attack", "--device", device).code == 0
