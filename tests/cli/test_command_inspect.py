"""`verigrad inspect`: the facts of a model outside the package, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shell import files

from verigrad.models.facts import NAMES
from verigrad.models.loading import load_model, weights_hash

NETS = Path(__file__).parents[1] / "nets"
OTHERS = """
import torch
from brightness import Brightness

class Soft(Brightness):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Leaving(Brightness):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise SystemExit(0)
        return super().forward(x)

class LeavingBatches(Brightness):
    def forward(self, x):
        return super().forward(x) if len(x) in (1, 60) else exit(0)

class Silent(Brightness):
    def train(self, mode=True):
        super().train(mode)

    def to(self, where):
        super().to(where)

class Loud(Brightness):
    def __init__(self):
        print("made")
        super().__init__()

    def forward(self, x):
        print("shown")
        return super().forward(x)

class Noisy(Brightness):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))
"""


@pytest.fixture(scope="module")
def there(workplace: Path) -> Path:
    (workplace / "others.py").write_text(OTHERS)
    return workplace


def rows(out: str) -> dict[str, list[str]]:
    """Of each fact, the words after its name."""
    return {
        name: line[len(name) :].split() for line in out.splitlines() for name in NAMES if line.startswith(f"{name} ")
    }


def test_every_fact_is_in_the_table(verigrad, there: Path) -> None:
    said = verigrad("inspect", "brightness:Brightness", "--data", "own.npz")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("brightness.Brightness, 1 parameters, weights ")
    assert list(rows(said.out)) == list(NAMES)
    assert {words[0] for words in rows(said.out).values()} == {"yes"}
    assert rows(said.out)["input range"][1] == "0.95"


def test_json_holds_the_same_facts(verigrad, there: Path) -> None:
    before = files(there)
    said = verigrad("inspect", "brightness:Brightness", "--data", "own.npz", "--n", 30, "--json")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    assert [fact["name"] for fact in told["facts"]] == list(NAMES)
    assert all(fact["holds"] is True for fact in told["facts"])
    with np.load("own.npz") as archive:
        x, y = archive["x"][:30].astype(np.float64), archive["y"][:30]
    right = ((x[..., :2].mean((1, 2, 3)) > x[..., 2:].mean((1, 2, 3))) == y).mean()
    assert told["facts"][-1]["value"] == pytest.approx(right)
    assert (told["n"], told["class"], told["parameters"]) == (30, "brightness.Brightness", 1)
    assert told["weights_sha256"] == weights_hash(load_model("brightness:Brightness"))
    assert files(there) == before


def test_what_cannot_be_audited_is_told_and_exits_with_1(verigrad, there: Path) -> None:
    said = verigrad("inspect", "others:Soft", "--data", "own.npz")
    assert (said.code, said.err) == (1, "")
    found = rows(said.out)
    assert found["logits"][:2] == ["no", "probabilities"]
    assert found["input range"][:2] == ["not", "told"]
    assert "Return the logits" in said.out
    assert verigrad("inspect", "others:Soft", "--data", "own.npz", "--json").code == 1


def test_what_does_not_hold_is_no_error(verigrad, there: Path) -> None:
    said = verigrad("inspect", "others:Noisy", "--data", "own.npz")
    assert (said.code, said.err) == (0, "")
    assert rows(said.out)["deterministic"][0] == "no"
    assert rows(said.out)["batch order"][:2] == ["not", "told"]


def test_the_normalised_model_is_inspected(verigrad, there: Path) -> None:
    said = verigrad("inspect", "brightness:Brightness", "--data", "own.npz", "--normalise", "0.5/0.25", "--json")
    told = json.loads(said.out)
    assert told["model"] == 'normalised:mean=(0.5),module="brightness:Brightness",std=(0.25)'
    assert told["class"] == "verigrad.models.normalised.Normalised"


@pytest.mark.parametrize("which", ["Leaving", "LeavingBatches"])
def test_a_model_that_leaves_is_told(verigrad, there: Path, which: str) -> None:
    import torchdiffeq  # noqa: F401 (where it is loaded, its calls are looked for)

    said = verigrad("inspect", f"others:{which}", "--data", "own.npz")
    assert said.err == ""
    assert list(rows(said.out)) == list(NAMES)
    assert said.code == (which == "Leaving")
    name = "differentiable" if which == "Leaving" else "deterministic"
    assert "SystemExit: 0." in " ".join(rows(said.out)[name])


def test_a_model_whose_own_methods_return_nothing_is_inspected(verigrad, there: Path) -> None:
    said = verigrad("inspect", "others:Silent", "--data", "own.npz")
    assert (said.code, said.err) == (0, "")
    assert rows(said.out)["eval mode"][0] == "yes"


def test_what_a_model_prints_is_not_in_the_json(verigrad, there: Path) -> None:
    said = verigrad("inspect", "others:Loud", "--data", "own.npz", "--json")
    assert json.loads(said.out)["class"] == "others.Loud"
    assert set(said.err.split()) == {"made", "shown"}


def test_how_blocks_are_solved_and_differentiated_is_told(verigrad) -> None:
    said = verigrad("inspect", NETS / "sonet", "--data", "digits", "--n", 4)
    assert said.code == 0
    head = " ".join(said.out[: said.out.index("\nfact")].split())
    assert head.count("Direct(grid='all'), over [0, 1]") == 6
    assert "stem: dopri5, BatchCoupled(rtol=0.1" in head
    told = json.loads(verigrad("inspect", NETS / "sonet", "--data", "digits", "--n", 4, "--json").out)
    assert {(one["gradient"], one["t0"], one["t1"]) for one in told["solvers"]} == {("Direct(grid='all')", 0.0, 1.0)}
    assert told["torchdiffeq"] == []


def test_calls_of_torchdiffeq_are_told(verigrad) -> None:
    pytest.importorskip("torchdiffeq")
    said = verigrad("inspect", "foreigners:timed_net", "--data", "digits", "--n", 4)
    assert (said.code, said.err) == (0, "")
    head = " ".join(said.out[: said.out.index("\nfact")].split())
    assert "odeint: dopri5, BatchCoupled(rtol=0.001" in head
    assert "Direct(grid='first')" in head
    told = json.loads(verigrad("inspect", "foreigners:timed_net", "--data", "digits", "--n", 4, "--json").out)
    assert [call.partition(",")[0] for call in told["torchdiffeq"]] == ["odeint: dopri5"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nowhere", "--data", "own.npz"], "There is no model 'nowhere'"),
        (["small-conv", "--data", "own.npz"], "would have random weights"),
        (["brightness:Brightness", "--data", "none.npz"], "none.npz"),
        (["brightness:Brightness", "--data", "own.npz", "--normalise", "x"], "must be MEAN/STD"),
        (["brightness:Brightness", "--data", "own.npz", "--weights", "none.pt"], "There is no weights file none.pt"),
        (["brightness:Brightness", "--data", "own.npz", "--n", "61"], "n=61"),
        (["brightness:Brightness", "--data", "own.npz", "--batch", "0"], "'--batch'"),
        (["brightness:Brightness"], "Missing"),
    ],
)
def test_bad_input_is_one_line(verigrad, there: Path, arguments: list[str], part: str) -> None:
    said = verigrad("inspect", *arguments)
    assert part in said.error
    assert said.out == ""
