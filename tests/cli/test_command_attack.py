"""`verigrad attack` on a model outside the package, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shell import files

from verigrad.ledger.store import Ledger

COMMON = ("attack", "brightness:Brightness", "--data", "own.npz", "--threat", "linf:0.1")


def accuracies(out: str) -> dict[str, str]:
    rows = [line.split("  ") for line in out.splitlines() if "%" in line and "interval" not in line]
    return {row[0].strip(): next(cell.strip() for cell in row[1:] if "%" in cell) for row in rows}


def best_linf(folder: Path, eps: float) -> float:
    """The model is linear: an image falls if and only if its lead is within what the ball and the box allow."""
    with np.load(folder / "own.npz") as archive:
        x, y = archive["x"].astype(np.float64), archive["y"]
    sign = np.where(y == 1, 1.0, -1.0)[:, None, None, None] * np.array([1, 1, -1, -1.0])
    loss = np.where(sign > 0, np.minimum(eps, x), np.minimum(eps, 1 - x)).sum((1, 2, 3)) / 8
    lead = (sign * x).sum((1, 2, 3)) / 8
    return float((lead - loss > 0).mean())


def test_the_accuracy_left_is_the_closed_form(verigrad, workplace: Path) -> None:
    said = verigrad(*COMMON, "--attacks", "fgsm pgd:steps=5", "--attacks", "pgd:score=margin,steps=5", "--batch", 7)
    assert said.code == 0, said.err
    left = accuracies(said.out)
    assert left["none"] == "95.0 %"
    best = f"{100 * best_linf(workplace, 0.1):.1f} %"
    assert left["fgsm"] == best
    assert left["pgd:score=margin,steps=5"] == best
    assert left["worst case of all"] == best
    assert "n = 60" in said.out


def test_a_ledger_is_kept_and_resumed(verigrad, workplace: Path) -> None:
    folder = workplace / "kept"
    first = verigrad(*COMMON, "--attacks", "fgsm", "--out", folder)
    assert first.code == 0, first.err
    assert files(folder) == {"ledger.sqlite"}
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        ledger.check()
        assert ledger.identity["model"] == "brightness:Brightness"
        assert ledger.identity["threat"] == "linf:0.1"
        (unit,) = ledger.units()
        seconds = unit.seconds
    again = verigrad(*COMMON, "--attacks", "fgsm on-twin:attack=fgsm,change=rescaled", "--out", folder)
    assert accuracies(first.out)["fgsm"] == accuracies(again.out)["fgsm"]
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        assert [unit.name for unit in ledger.units()] == ["fgsm", "on-twin"]
        assert ledger.units()[0].seconds == seconds
    assert "seed" in verigrad(*COMMON, "--attacks", "fgsm", "--out", folder, "--seed", 1).error


def test_without_out_nothing_is_kept(verigrad, workplace: Path) -> None:
    before = files(workplace)
    assert verigrad(*COMMON, "--attacks", "fgsm", "--n", 10).code == 0
    assert files(workplace) == before


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": "nowhere:model"}, "nowhere"),
        ({"model": "brightness:nothing"}, "nothing"),
        ({"model": "own.npz"}, "own.npz"),
        ({"--weights": "none.pt"}, "none.pt"),
        ({"--data": "none.npz"}, "none.npz"),
        ({"--data": "digits"}, "labels go up to"),
        ({"--threat": "linf"}, "linf:EPS"),
        ({"--threat": "linf:-1"}, "Got -1"),
        ({"--attacks": "pdg"}, "Did you mean 'pgd'?"),
        ({"--attacks": "pgd:steps=0"}, "at least 1"),
        ({"--attacks": " "}, "names no attack"),
        ({"--n": "61"}, "n=61"),
        ({"--seed": "-1"}, "seed"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(verigrad, workplace: Path, change: dict[str, str], part: str) -> None:
    options = {"--data": "own.npz", "--threat": "linf:0.1", "--attacks": "fgsm", "--out": "refused", **change}
    model = options.pop("model", "brightness:Brightness")
    before = files(workplace)
    said = verigrad("attack", model, *(word for option in options.items() for word in option))
    assert part in said.error
    assert said.out == ""
    assert files(workplace) == before
