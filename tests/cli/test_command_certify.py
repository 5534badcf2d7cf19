"""`verigrad certify`: radii of a linear model in closed form, resumed runs, contradictions, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from verigrad.certificates.noisy_votes import NoisyVotes
from verigrad.ledger.store import Ledger

LINEAR = '''
import torch
from torch import nn

class Linear(nn.Sequential):
    """The two halves of a 4x4 image against each other, by one linear layer."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 2, bias=False))
        lead = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4) / 2
        self[1].weight = nn.Parameter(torch.stack([-lead, lead]))
'''


@pytest.fixture(autouse=True)
def linear(workplace: Path) -> None:
    (workplace / "linear.py").write_text(LINEAR)


CERTIFY = ("certify", "linear:Linear", "--data", "own.npz", "--seed", "1")


def exact(folder: Path) -> np.ndarray:
    """The Linf distance of each image from the other class inside the box of valid images, by bisection on
    Σ |w| min(eps, room) = |lead|; 0 where the label is wrong."""
    data = np.load(folder / "own.npz")
    x = data["x"].astype(np.float64).reshape(-1, 16)
    weight = np.tile([1.0, 1.0, -1.0, -1.0], 4)
    lead = x @ weight
    # Down where the weight has the sign of the lead, up elsewhere.
    room = np.where(weight * np.sign(lead)[:, None] > 0, x, 1 - x)
    low, high = np.zeros(len(x)), np.ones(len(x))
    for _ in range(60):
        middle = (low + high) / 2
        reached = np.minimum(middle[:, None], room).sum(1) >= np.abs(lead)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return np.where((lead > 0) == (data["y"] == 1), high, 0)


def numbers(folder: Path) -> dict:
    return json.loads((folder / "certificates.json").read_text())


def test_the_radii_of_a_linear_model_are_exact(verigrad, workplace: Path) -> None:
    out = workplace / "exact"
    said = verigrad(*CERTIFY, "--certificate", "interval:steps=20", "--out", out)
    assert said.code == 0, said.err
    (told,) = numbers(out)["certificates"]
    wanted = exact(workplace)
    got = np.array(told["radius"])
    assert (got <= wanted + 1e-6).all()
    # For one layer the interval bound is the distance itself.
    assert np.min(got[wanted > 0] / wanted[wanted > 0]) > 0.99
    assert told["honesty"] == "sound"
    assert told["contradictions"] == []
    assert told["compared"] == told["certified"]
    assert (out / "certificates.html").exists()
    assert "interval:steps=20" in said.out


def test_the_same_command_runs_nothing_again_and_another_certificate_joins(verigrad, workplace, monkeypatch) -> None:
    out = workplace / "again"
    first = verigrad(*CERTIFY, "--certificate", "interval", "--out", out)
    before = numbers(out)
    monkeypatch.setattr("verigrad.certificates.interval.Interval.__call__", None)
    again = verigrad(*CERTIFY, "--certificate", "interval", "--out", out)
    assert (again.code, again.out) == (0, first.out)
    assert numbers(out) == before
    said = verigrad(*CERTIFY, "--certificate", "spectral:norm=linf", "--out", out)
    assert said.code == 0, said.err
    assert len(numbers(out)["certificates"]) == 2


def test_the_ledger_is_verified_and_drawn_again(verigrad, workplace: Path) -> None:
    out = workplace / "drawn"
    said = verigrad(*CERTIFY, "--certificate", "interval", "--out", out)
    assert verigrad("verify", out).code == 0
    page = (out / "certificates.html").read_text()
    (out / "certificates.html").unlink()
    assert verigrad("report", out).out == said.out
    assert (out / "certificates.html").read_text() == page


def test_witnesses_of_another_run_are_compared(verigrad, workplace: Path) -> None:
    out, other = workplace / "beside", workplace / "attacked"
    attack = ("attack", "linear:Linear", "--data", "own.npz", "--threat", "linf:0.2", "--attacks", "fgsm")
    assert verigrad(*attack, "--out", other).code == 0
    named = ("--certificate", "interval", "--check", "none", "--against", other)
    assert verigrad(*CERTIFY, *named, "--out", out).code == 0
    told = numbers(out)
    assert told["certificates"][0]["compared"] > 0
    assert told["attacks"] == ["fgsm:score=cross_entropy"]


def test_a_sound_certificate_that_is_contradicted_exits_with_6(verigrad, workplace: Path) -> None:
    out = workplace / "lying"
    assert verigrad(*CERTIFY, "--certificate", "interval", "--out", out).code == 0
    with Ledger.create_or_resume(out / "ledger.sqlite", Ledger.read(out / "ledger.sqlite").identity) as ledger:
        notes = ledger.notes("certified")
        for name, note in notes.items():
            wider = [3 * radius for radius in note["radius"]]
            ledger.put_note("certified", f"too-wide#{name}", {**note, "certificate": "too-wide", "radius": wider})
    said = verigrad("report", out)
    assert said.code == 6
    assert "fault of verigrad" in said.out


SMOOTHING = ("--certificate", "smoothing:sigma=0.25,n=600,n0=40")


def test_smoothing_is_below_the_distance_and_is_not_contradicted_by_errors_of_the_model(verigrad, workplace) -> None:
    out = workplace / "smooth"
    said = verigrad(*CERTIFY, *SMOOTHING, "--out", out)
    assert said.code == 0, said.err
    told = numbers(out)
    (row,) = told["certificates"]
    assert (row["honesty"], row["alpha"], row["subject"]) == ("probabilistic", 0.001, "smoothed model")
    # A plane smoothed is the same plane: its distance without the box, since noise leaves the box.
    data = np.load(workplace / "own.npz")
    lead = data["x"].astype(np.float64).reshape(-1, 16) @ np.tile([1.0, 1.0, -1.0, -1.0], 4)
    away = np.where((lead > 0) == (data["y"] == 1), np.abs(lead) / 4, 0)
    got = np.array(row["radius"])
    assert (got <= away + 1e-6).all()
    assert np.corrcoef(got, np.minimum(away, 0.5))[0, 1] > 0.9
    assert row["contradictions"] is None
    # The attack on the model that is smoothed is drawn above it.
    assert told["attacks"]
    assert "errors of the model do not contradict it" in said.out


def test_smoothing_that_was_killed_goes_on_and_ends_with_the_same(verigrad, workplace: Path, monkeypatch) -> None:
    whole, cut = workplace / "whole", workplace / "cut"
    assert verigrad(*CERTIFY, *SMOOTHING, "--check", "none", "--out", whole).code == 0
    more, calls = NoisyVotes.more, []

    def killed(self, rows, draws):
        calls.append(draws)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return more(self, rows, draws)

    monkeypatch.setattr(NoisyVotes, "more", killed)
    assert verigrad(*CERTIFY, *SMOOTHING, "--check", "none", "--out", cut).code not in (0, 2)
    with Ledger.read(cut / "ledger.sqlite") as ledger:
        held = len(ledger.notes("certified"))
    assert 0 < held < len(numbers(whole)["certificates"][0]["radius"])
    assert not (cut / "certificates.json").exists()
    monkeypatch.setattr(NoisyVotes, "more", more)
    assert verigrad(*CERTIFY, *SMOOTHING, "--check", "none", "--out", cut).code == 0
    assert numbers(cut) == numbers(whole)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--certificate", ""), "--certificate names none"),
        (("--certificate", "intervals"), "There is no certificate"),
        (("--certificate", "interval spectral:norm=l2"), "cannot be compared"),
        (("--certificate", "interval", "--check", "pgd:steps=3"), "smallest-eps:attack=pgd(steps=3)"),
        (("--certificate", "interval", "--check", "ddn"), "made for L2"),
        (("--certificate", "smoothing"), "needs a value for sigma"),
        (("--certificate", "smoothing:sigma=0"), "'sigma' of smoothing must be a positive number"),
        (("--certificate", "smoothing:sigma=0.25,alpha=1.5"), "'alpha' of smoothing must lie in (0, 1)"),
        (("--certificate", "smoothing:sigma=0.25,norm=linf"), "no key 'norm'"),
        (("--certificate", "smoothing:sigma=0.25,radii=(0,2)"), "can never certify the radius 2.0"),
        (("--certificate", "smoothing:sigma=0.25 interval"), "cannot be compared"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(verigrad, workplace: Path, words, part: str) -> None:
    out = workplace / "bad"
    assert part in verigrad(*CERTIFY, *words, "--out", out).error
    assert not out.exists()
