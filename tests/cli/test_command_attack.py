"""`verigrad attack` on a model outside the package, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shell import files

from verigrad.cli import curve
from verigrad.ledger.store import Ledger
from verigrad.reports.numbers import percent

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
        ({"--attacks": "fgsm ddn"}, "made for L2, not for Linf"),
        ({"--eps-curve": "0.1,0.05"}, "After 0.1 it has 0.05"),
        ({"--eps-curve": "0.1,1/10"}, "After 0.1 it has 1/10"),
        ({"--eps-curve": "0,0.1"}, "First it has 0"),
        ({"--eps-curve": "0.1,much"}, "Got 'much'"),
        ({"--eps-curve": "0.1,"}, "Got ''"),
        ({"--eps-curve": "1/0"}, "Got '1/0'"),
        ({"--eps-curve": "-0.1"}, "Got '-0.1'"),
        ({"--eps-curve": "nan"}, "Got 'nan'"),
        ({"--eps-curve": "1e999"}, "Got '1e999'"),
        ({"--eps-curve": "0.5,8"}, "Did you mean 8/255?"),
        ({"--eps-curve": "1,4.1", "--threat": "l2:1"}, "up to 4 under l2"),
        ({"--eps-curve": "1,17", "--threat": "l0:1"}, "up to 16 under l0"),
        ({"--eps-curve": "1,5/2", "--threat": "l0:1"}, "whole pixels"),
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


LADDER = ("0.02", "13/255", "0.1", "0.25")
SIZES = (0.02, 13 / 255, 0.1, 0.25)
CURVE = (*COMMON, "--eps-curve", ",".join(LADDER), "--batch", 16)
FOLDERS = tuple(f"eps-{label.replace('/', 'of')}" for label in LADDER)


def numbers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "curve.json").read_text())


def tried(folder: Path) -> dict[str, list[int]]:
    """By attack, how many samples it was run on at each level."""
    counts: dict[str, list[int]] = {}
    for place, name in enumerate(FOLDERS):
        with Ledger.read(folder / name / "ledger.sqlite") as ledger:
            ledger.check()
            assert ledger.identity["threat"] == f"linf:{SIZES[place]!r}"
            for unit in ledger.units():
                counts.setdefault(unit.name, [0] * len(LADDER))[place] += unit.attempted
    return counts


def test_a_curve_is_the_closed_form_at_each_eps(verigrad, workplace: Path) -> None:
    folder = workplace / "curve"
    said = verigrad(*CURVE, "--attacks", "fgsm fmn", "--out", folder)
    assert said.code == 0, said.err
    found = numbers(folder)
    exact = [best_linf(workplace, eps) for eps in SIZES]
    assert exact == sorted(exact, reverse=True)
    assert len(set(exact)) == len(exact)
    fgsm, fmn = found["attacks"]
    assert fgsm["accuracy"] == pytest.approx(exact)
    assert found["worst"]["accuracy"] == pytest.approx(exact)
    assert (fgsm["kind"], fmn["kind"]) == ("budget", "minimal")
    assert (fgsm["once"], fmn["once"]) == (False, True)
    # The contract of attacks asks of FMN that it comes within a thousandth of the nearest error.
    for got, eps, best in zip(fmn["accuracy"], SIZES, exact, strict=True):
        assert best <= got <= best_linf(workplace, eps / 1.001)
    rows = {line.split("  ")[0]: line for line in said.out.splitlines()}
    for name in ("fgsm", "worst case of all"):
        assert rows[name].removeprefix(name).replace(" %", "%").split() == [
            percent(share, 60).replace(" %", "%") for share in (found["clean"], *exact)
        ]
    assert "n = 60" in said.out
    assert "95 % interval" in rows
    assert f"curve: {folder / 'curve.html'}" in said.out


def test_a_budget_attack_climbs_on_what_it_left_and_a_minimal_one_runs_once(verigrad, workplace: Path) -> None:
    folder = workplace / "climbed"
    assert verigrad(*CURVE, "--attacks", "fgsm fmn", "--out", folder).code == 0
    found = numbers(folder)
    left = [found["correct"] - broken for broken in (0, *found["attacks"][0]["broken"])]
    assert tried(folder) == {"fgsm": left[:-1], "fmn": [0, 0, 0, found["correct"]]}
    assert files(folder) == {"curve.json", "curve.html", *FOLDERS, *(f"{name}/ledger.sqlite" for name in FOLDERS)}


def test_every_level_of_a_curve_is_verified(verigrad, workplace: Path) -> None:
    folder = workplace / "verified"
    assert verigrad(*CURVE, "--attacks", "fgsm fmn", "--out", folder).code == 0
    for level, name in zip(numbers(folder)["levels"], FOLDERS, strict=True):
        assert level["folder"] == name
        said = verigrad("verify", folder / name, "--seal", level["seal"])
        assert said.code == 0, said.err
    said = verigrad("verify", folder)
    assert said.code == 0
    assert [line.partition(":")[0] for line in said.out.splitlines()] == sorted(FOLDERS)
    assert verigrad("verify", folder, "--seal", "0" * 64).code == 2
    with sqlite3.connect(folder / FOLDERS[1] / "ledger.sqlite") as db:
        db.execute("UPDATE witnesses SET prediction = prediction + 1")
    db.close()
    assert verigrad("verify", folder).code == 1


def test_a_curve_that_was_cut_off_goes_on(verigrad, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, whole = workplace / "cut", workplace / "whole"
    command = (*CURVE, "--attacks", "fgsm pgd:steps=5,score=margin", "--out")
    original, calls = curve.attempt, []

    def killed(*arguments: Any, **named: Any) -> Any:
        calls.append(named["name"])
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    monkeypatch.setattr(curve, "attempt", killed)
    said = verigrad(*command, folder)
    assert said.code == 130
    assert "goes on where it stopped" in said.err
    before = tried(folder)
    assert "pgd" in before
    # What is there may be drawn; an attack that was cut off is not in it.
    assert verigrad("report", folder).code == 0
    assert [row["label"] for row in numbers(folder)["attacks"]] == ["fgsm"]
    with Ledger.read(folder / FOLDERS[0] / "ledger.sqlite") as ledger:
        seconds = [unit.seconds for unit in ledger.units()]
    monkeypatch.setattr(curve, "attempt", original)
    assert verigrad(*command, folder).code == 0
    assert verigrad(*command, whole).code == 0
    assert numbers(folder) == numbers(whole)
    with Ledger.read(folder / FOLDERS[0] / "ledger.sqlite") as ledger:
        assert [unit.seconds for unit in ledger.units()] == seconds


def test_more_attacks_may_be_tried_on_a_curve_but_no_other_ladder(verigrad, workplace: Path) -> None:
    folder = workplace / "more"
    assert verigrad(*CURVE, "--attacks", "fgsm", "--out", folder).code == 0
    assert verigrad(*CURVE, "--attacks", "pgd:steps=2", "--out", folder).code == 0
    assert [row["label"] for row in numbers(folder)["attacks"]] == ["fgsm", "pgd:steps=2"]
    kept = files(folder)
    for other in ("0.02,0.1", "0.02,13/255,0.1,0.25,0.3"):
        assert verigrad(*COMMON, "--eps-curve", other, "--batch", 16, "--attacks", "fgsm", "--out", folder).code == 2
    assert "holds a curve" in verigrad(*COMMON, "--attacks", "fgsm", "--out", folder).error
    assert files(folder) == kept
    assert verigrad(*COMMON, "--attacks", "fgsm", "--out", workplace / "plain").code == 0
    assert "one threat" in verigrad(*CURVE, "--attacks", "fgsm", "--out", workplace / "plain").error


def test_a_curve_without_out_keeps_nothing(verigrad, workplace: Path) -> None:
    before = files(workplace)
    said = verigrad(*CURVE, "--attacks", "fgsm", "--n", 10)
    assert said.code == 0, said.err
    assert "n = 10" in said.out
    assert "curve:" not in said.out
    assert files(workplace) == before


def test_a_curve_under_l0_counts_pixels(verigrad, workplace: Path) -> None:
    """One pixel moves the lead by x/8 or (1 - x)/8 at most: the best k pixels are a sum of the largest of these."""
    with np.load(workplace / "own.npz") as archive:
        x, y = archive["x"].astype(np.float64), archive["y"]
    sign = np.where(y == 1, 1.0, -1.0)[:, None, None, None] * np.array([1, 1, -1, -1.0])
    gains = np.sort(np.where(sign > 0, x, 1 - x).reshape(len(x), -1) / 8)[:, ::-1]
    lead = (sign * x).sum((1, 2, 3)) / 8
    words = ["--threat", "l0:1", "--eps-curve", "1,2,4", "--attacks", "greedy-pixels:candidates=16"]
    said = verigrad(*COMMON[:4], *words, "--out", workplace / "pixels")
    assert said.code == 0, said.err
    exact = [float((lead - gains[:, :pixels].sum(1) > 0).mean()) for pixels in (1, 2, 4)]
    assert numbers(workplace / "pixels")["worst"]["accuracy"] == pytest.approx(exact)
    assert exact[0] > exact[2]


JOINT = """
from brightness import Brightness

class Joint(Brightness):
    batch_coupled = True

    def forward(self, x):
        return super().forward(x) + 0 * x.mean()
"""


def test_where_batch_mates_matter_a_minimal_attack_climbs_too(verigrad, workplace: Path) -> None:
    (workplace / "joint.py").write_text(JOINT)
    folder = workplace / "joint"
    said = verigrad("attack", "joint:Joint", *CURVE[2:], "--attacks", "fmn:steps=20", "--out", folder)
    assert said.code == 0, said.err
    assert all(tried(folder)["fmn"][:2])
    (row,) = numbers(folder)["attacks"]
    assert (row["kind"], row["once"]) == ("minimal", False)
    # Counted where its joint batch is inside the threat, which is at the level that found it.
    for place, name in enumerate(FOLDERS):
        with Ledger.read(folder / name / "ledger.sqlite") as ledger:
            before = row["broken"][place - 1] if place else 0
            assert len(ledger.witnesses()) == row["broken"][place] - before


def test_a_model_that_was_changed_behind_its_weights_is_another_run(verigrad, tmp_path: Path) -> None:
    """The step size of a net is in no weight: with the same weights it is another net."""
    from verigrad import catalog
    from verigrad.models.loading import save_checkpoint
    from verigrad.training.trainer import initialised

    spec = "polynet:channels=4,in_channels=1,h=1.0"
    save_checkpoint(spec, initialised(lambda: catalog.build("model", spec), 0), tmp_path / "net")
    run = (
        "attack",
        tmp_path / "net",
        "--data",
        "digits",
        "--n",
        20,
        "--threat",
        "linf:0.05",
        "--out",
        tmp_path / "run",
    )
    assert verigrad(*run, "--attacks", "fgsm").code == 0
    description = tmp_path / "net" / "model.json"
    description.write_text(description.read_text().replace("h=1.0", "h=1e-9"))
    said = verigrad(*run, "--attacks", "fgsm pgd:steps=3")
    assert "behaviour_sha256 is" in said.error
