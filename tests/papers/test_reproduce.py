"""Recipes: every printed number has its cell, runs are shared and kept, and statuses follow from the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.papers import gradient_regularization, natural_robustness, optimal_control, sonet
from verigrad.papers.reproduce import RECIPES, find, reproduce, results_file
from verigrad.papers.result import Measured, Status, compared
from verigrad.papers.workshop import Net, Workshop

TABLES = [*sonet.TABLES, *optimal_control.TABLES, *natural_robustness.TABLES, *gradient_regularization.TABLES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all recipes: what two of them share is made once."""
    return tmp_path_factory.mktemp("papers")


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.id for recipe in RECIPES])
def test_a_recipe_has_a_cell_for_every_printed_number(recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    told = reproduce(recipe, "smoke", folder)
    cells = {(tuple(cell["row"]), cell["column"]): cell for cell in told["cells"]}
    wanted = [cell for table in TABLES if table.id == recipe.id for cell in table.cells()]
    assert wanted
    for cell in wanted:
        got = cells[cell.row, cell.column]
        assert got["printed"] == cell.printed
        assert got["ours"] is not None or got["reason"]
    assert told["findings"]
    written = json.loads(results_file(folder, recipe, "smoke").read_text())
    assert written == json.loads(json.dumps(told))


def test_a_second_run_attacks_nothing_and_says_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = find("sonet/table4")
    first = reproduce(recipe, "smoke", folder)

    def refuse(*args, **named):
        raise AssertionError("a net was trained, or an attack run, again")

    monkeypatch.setattr("verigrad.papers.workshop.train", refuse)
    monkeypatch.setattr("verigrad.evaluation.run._performed", lambda *a, **k: (refuse() for _ in ()))
    again = reproduce(recipe, "smoke", folder)
    assert again["cells"] == first["cells"]
    assert again["findings"] == first["findings"]


def test_nets_that_differ_in_anything_are_two() -> None:
    one = Net(model="small-conv", data="digits", epochs=1, lr=0.1)
    other = Net(model="small-conv", data="digits", epochs=1, lr=0.1, seed=1)
    assert one.name == Net(model="small-conv", data="digits", epochs=1, lr=0.1).name
    assert one.name != other.name


def test_a_trial_counts_what_the_attacks_leave_together(tmp_path: Path) -> None:
    from verigrad.core.threat import Linf

    shop = Workshop(tmp_path)
    net = Net(model="small-conv:channels=4", data="digits", n=300, epochs=3, lr=0.01, optimiser="adam")
    trial = shop.trial(net, Linf(eps=0.08), n=30)
    weak, strong = trial.left("fgsm"), trial.left("pgd:steps=10")
    both = trial.left("fgsm", "pgd:steps=10")
    assert 0 < both.value <= min(weak.value, strong.value)
    assert weak.value < trial.natural().value
    assert both.n == 30


@pytest.mark.parametrize(
    ("count", "printed", "status"),
    [(50, 50.0, Status.MATCH), (50, 54.9, Status.MATCH), (50, 55.1, Status.DIFFERS), (0, 12.0, Status.DIFFERS)],
)
def test_the_status_follows_from_the_band(count: int, printed: float, status: Status) -> None:
    cell = compared("t", ("r",), "c", printed, Measured.share(count, 100), band=5.0, protocol="other data")
    assert cell.status == status
    assert bool(cell.reason) == (status == Status.DIFFERS)


def test_what_was_not_run_says_why() -> None:
    cell = compared("t", ("r",), "c", 1.0, None, band=5.0, protocol="needs ImageNet")
    assert (cell.status, cell.reason) == (Status.NOT_RUN, "needs ImageNet")


@pytest.mark.parametrize(
    ("name", "scale", "part"), [("sonet/table9", "smoke", "no table or figure"), ("sonet/table1", "tiny", "The scale")]
)
def test_bad_names_are_refused(name: str, scale: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=part):
        reproduce(find(name), scale, tmp_path)
    assert not any(tmp_path.iterdir())
