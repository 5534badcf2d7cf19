"""Audits at the edges: two classes, one sample, nothing right, nothing allowed, other precision, nothing finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from goods import SMALL, WEIGHTS, read, weights
from safetensors.torch import save_file
from shell import Said, Shell


def run(verigrad: Shell, out: Path, model: str, *more: object) -> tuple[Said, dict[str, Any]]:
    said = verigrad("audit", model, *more, "--out", out)
    assert said.code == 0, said.err
    told = read(out)
    assert told["verdict"] in ("upheld", "overstated", "obfuscated", "undecided")
    assert all(math.isfinite(told[key]) for key in ("clean", "claimed", "found", "gap"))
    assert verigrad("verify", out).code == 0
    return said, told


def test_two_classes(verigrad, shop: Path, tmp_path: Path) -> None:
    common = ("--data", "parity.npz", "--threat", "linf:0.1", "--n", 24)
    _, told = run(verigrad, tmp_path / "audit", "nets:Two", *WEIGHTS, *common)
    assert not any("dlr" in row["attack"] for row in told["attacks"])
    command = ("audit", "nets:Two", *WEIGHTS, *common, "--claim-attack", "pgd:score=dlr", "--out", tmp_path / "refused")
    assert "at least 3 classes" in verigrad(*command).error
    assert not (tmp_path / "refused").exists()


def test_batch_mates_that_change_the_logits(verigrad, shop: Path, tmp_path: Path) -> None:
    """It is found without a word of the model, and its witnesses are verified in their joint batches."""
    said, told = run(verigrad, tmp_path / "audit", "nets:Mates", *WEIGHTS, *SMALL, "--batch", 8, "--n", 16)
    assert told["batch_coupled"]
    assert told["found_alone"] is not None
    assert "judged in whole batches of 8" in said.out


def test_a_model_that_is_right_on_nothing(verigrad, shop: Path, tmp_path: Path) -> None:
    said, told = run(verigrad, tmp_path / "audit", "nets:Wrong", *WEIGHTS, *SMALL)
    assert (told["clean"], told["found"], told["claimed"]) == (0, 0, 0)
    assert all(check["value"] is None and not check["fired"] for check in told["health"])
    assert "clean 0 %" in said.out


def test_a_claim_without_survivors(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--threat", "linf:0.9")
    assert told["clean"] > 0.5
    assert (told["claimed"], told["found"]) == (0, 0)
    assert [row["stage"] for row in told["attacks"]] == ["claim"]
    assert told["escalation"]["converged"]


@pytest.mark.parametrize("threat", ["linf:0", "l2:0", "l0:0"])
def test_an_attacker_who_may_do_nothing(verigrad, shop: Path, tmp_path: Path, threat: str) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--threat", threat, "--n", 3)
    assert told["found"] == told["claimed"] == told["clean"]
    assert all(row["broken"] == 0 for row in told["attacks"])


def test_one_sample(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--n", 1)
    assert told["verdict"] == "undecided"
    assert "too few" in " ".join(told["reasons"])


@pytest.mark.parametrize("model", ["nets:Double", "nets:Brain"])
def test_weights_of_another_precision(verigrad, shop: Path, tmp_path: Path, model: str) -> None:
    own = shop / "double.safetensors"
    kind = torch.float64 if model == "nets:Double" else torch.bfloat16
    save_file({name: value.to(kind) for name, value in weights().items()}, own)
    _, told = run(verigrad, tmp_path / "audit", model, "--weights", own, *SMALL, "--n", 12)
    assert told["clean"] > 0.5


def test_gradients_that_are_not_finite_decide_nothing(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:RootGradient", *WEIGHTS, *SMALL, "--n", 12)
    assert told["verdict"] == "undecided"
    assert told["errors"]["non_finite_gradients"] > 0
    assert "cannot be judged" in " ".join(told["reasons"])


def test_logits_that_are_not_finite_only_where_attacks_lead_uphold_nothing(
    verigrad, shop: Path, tmp_path: Path
) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:NanFar", *WEIGHTS, *SMALL)
    assert told["errors"]["non_finite_logits"] > 0
    assert told["verdict"] == "undecided"
    assert any(check["name"] == "non_finite_in_attack" and check["fired"] for check in told["health"])
