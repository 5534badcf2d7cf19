"""`verigrad audit` on models outside the package, as a new user runs it: what it writes, its gate, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from goods import COLUMNS, HONEST, LISTED, SMALL, WEIGHTS, contents, read, weights
from shell import files

from verigrad.cli import progress as progress_module
from verigrad.data.load import load_data
from verigrad.ledger.store import Ledger
from verigrad.models.loading import save_checkpoint
from verigrad.models.networks.small import SmallConvNet

# What a new user does.


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5", "l0:3"])
def test_a_factory_on_an_archive(verigrad, shop: Path, tmp_path: Path, threat: str) -> None:
    folder = tmp_path / "audit"
    suffix = "pt" if threat.startswith("l2") else "safetensors"
    said = verigrad(
        "audit", "nets:Means", "--weights", f"means.{suffix}", "--data", "digits.npz", "--threat", threat, "--n", 24,
        "--claim", 0.62, "--claim-attack", "pgd:steps=20", "--out", folder,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert files(folder) == {"ledger.sqlite", "audit.json", "report.html"}
    told = read(folder)
    assert set(told) >= LISTED | {"versions"}
    assert all(set(row) >= COLUMNS for row in told["attacks"])
    assert all(set(cause) >= {"name", "witnesses", "evidence"} for cause in told["causes"])
    assert (told["n"], told["claimed"], told["claim"]["stated"]) == (24, 0.62, 0.62)
    assert told["gap"] == pytest.approx(0.62 - told["found"])
    assert told["interval"][0] <= told["found"] <= told["interval"][1]
    assert told["identity"]["claim_attack"].startswith("pgd:")
    assert told["versions"]["torch"] == torch.__version__
    assert told["verdict"].upper() in said.out
    assert f"report: {folder / 'report.html'}" in said.out
    assert told["verdict"] in (folder / "report.html").read_text(encoding="utf-8")
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        assert len({witness.sample for witness in ledger.witnesses()}) == round((told["clean"] - told["found"]) * 24)
    assert verigrad("verify", folder).code == 0


def test_a_checkpoint_on_a_folder_of_images(verigrad, shop: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        save_checkpoint("small-conv:channels=2", SmallConvNet(channels=2), tmp_path / "checkpoint")
    folder = tmp_path / "audit"
    common = ("--data", "classes", "--threat", "linf:0.1", "--title", "[bold]mine[/bold]", "--out", folder)
    said = verigrad("audit", tmp_path / "checkpoint", *common)
    assert said.code == 0, said.err
    assert "[bold]mine[/bold]" in said.out
    told = read(folder)
    assert (told["n"], told["data"]["classes"], told["data"]["shape"]) == (24, 10, [1, 8, 8])
    assert verigrad("verify", folder).code == 0


def test_the_claim_and_what_is_found_are_a_linear_models_closed_form(verigrad, audited: Path, shop: Path) -> None:
    """Under Linf a lead z_y - z_j falls by at most Σ |w_y - w_j| · min(eps, room to the box): no search can do more."""
    data, state = load_data("digits.npz", n=24), weights()
    x, w = data.x.flatten(1).double(), state["weight"].double()
    z = x @ w.T + state["bias"].double()
    slope = w[data.y][:, None] - w[None]  # (N, K, D)
    room = torch.where(slope > 0, x[:, None].clamp(max=0.1), (1 - x[:, None]).clamp(max=0.1))
    lead = z.gather(1, data.y[:, None]) - z - (slope.abs() * room).sum(2)
    stands = (lead > 0).sum(1) == 9  # ahead of every class but its own
    assert read(audited)["found"] == pytest.approx(float(stands.double().mean()))


def test_every_step_is_a_line_of_its_own(verigrad, shop: Path, tmp_path: Path) -> None:
    said = verigrad(*HONEST, *SMALL, "--out", tmp_path / "audit")
    steps = [line.removeprefix("audit: ") for line in said.err.splitlines() if "health: " not in line]
    heads, notes = zip(*(step.split(": ", 1) for step in steps), strict=True)
    assert notes[:2] == ("health", "clean predictions")
    assert notes[2].startswith("claim: claim on")
    assert len(steps) == 2 + len(read(tmp_path / "audit")["attacks"])
    about = int(heads[0].split()[-1])
    assert len(steps) <= about <= 2 * len(steps)
    assert list(heads) == [f"step {number} of about {about}" for number in range(1, len(steps) + 1)]


def test_the_seal_is_printed_to_be_published(verigrad, shop: Path, tmp_path: Path) -> None:
    said = verigrad(*HONEST, *SMALL, "--n", 6, "--out", tmp_path / "audit")
    told = said.out.splitlines()[-1]
    assert told == f"seal: {read(tmp_path / 'audit')['seal']}"
    assert verigrad("verify", tmp_path / "audit", "--seal", told.removeprefix("seal: ")).code == 0


def test_the_progress_is_on_stderr_and_the_table_on_stdout(verigrad, shop: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE", 0.0)
    said = verigrad(*HONEST, *SMALL, "--n", 6, "--out", tmp_path / "audit")
    assert ": health: the margin has a gradient\n" in said.err
    assert "audit: " not in said.out
    assert "Attacks, in order" in said.out


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_legible(verigrad, audited: Path, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = verigrad("report", audited)
    *lines, last = said.out.splitlines()
    assert last.startswith("report: ")
    assert max(map(len, lines)) <= width
    start = lines.index("Attacks, in order") + 3
    attacks = read(audited)["attacks"]
    table = lines[start : lines.index("Health") - 1]
    assert len(table) <= (1 + len(attacks) * (3 if width == 80 else 1) + 2)
    words = {word for line in table for word in line.split()}
    for row in attacks:
        assert set(row["name"].split()) <= words, "no word is broken"


# The gate.


@pytest.mark.parametrize(
    ("code", "verdict", "model", "more"),
    [
        (0, "upheld", "nets:Means", ("--threat", "linf:0.08")),
        (3, "obfuscated", "nets:masked", ()),
        (4, "undecided", "nets:Random", ()),
        (4, "undecided", "nets:NanFar", ()),
        (5, "overstated", "nets:Means", ("--claim", 0.99)),
    ],
)
def test_the_gate(verigrad, shop: Path, tmp_path: Path, code: int, verdict: str, model: str, more: tuple) -> None:
    common = (model, *WEIGHTS, "--data", "digits.npz", "--threat", "linf:0.1", *more, "--out", tmp_path / "audit")
    said = verigrad("audit", *common, "--gate")
    assert (said.code, read(tmp_path / "audit")["verdict"]) == (code, verdict)
    assert verdict.upper() in said.out
    assert verigrad("audit", *common).code == 0, "without the gate every verdict is a success"


def test_a_model_without_gradient_is_never_upheld(verigrad, shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    said = verigrad("audit", "nets:Constant", "--data", "digits.npz", "--threat", "l2:0.5", "--out", folder, "--gate")
    assert (said.code, read(folder)["found"]) == (4, 0.1)
    assert "zero_gradient" in " ".join(read(folder)["reasons"])


# Resuming.


def test_the_same_command_attacks_nothing_again(verigrad, shop: Path, audited: Path, monkeypatch) -> None:
    from verigrad.evaluation import run

    def fail(*_: object) -> None:
        raise AssertionError("a unit was run again")

    before = contents(audited)
    monkeypatch.setattr(run, "perform", fail)
    said = verigrad(*HONEST, *SMALL, "--out", audited)
    assert said.code == 0, said.err
    after = contents(audited)
    assert after["audit.json"] == before["audit.json"]
    assert after["report.html"] == before["report.html"]
    control = verigrad(*HONEST, *SMALL, "--out", audited.parent / "another")
    assert "a unit was run again" in control.err


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"--seed": 1}, ["seed", "0", "1"]),
        ({"--claim": 0.5}, ["claim_accuracy", "null", "0.5"]),
        ({"--claim-attack": "fgsm"}, ["claim_attack", "pgd", "fgsm"]),
        ({"--weights": "other.safetensors"}, ["weights_sha256", "means.safetensors", "other.safetensors"]),
        ({"--threat": "linf:0.2"}, ["threat", "linf:0.1", "linf:0.2"]),
        ({"--n": 23}, ["n is 24 there and 23 here"]),
        ({"--batch": 5}, ["batch is 100 there and 5 here"]),
    ],
)
def test_another_audit_is_refused(verigrad, shop: Path, audited: Path, change: dict, names: list[str]) -> None:
    before = contents(audited)
    words = dict(zip([*WEIGHTS, *SMALL][::2], [*WEIGHTS, *SMALL][1::2], strict=True)) | change
    said = verigrad("audit", "nets:Means", *(word for pair in words.items() for word in pair), "--out", audited)
    for name in names:
        assert name in said.error
    assert said.out == ""
    assert contents(audited) == before
