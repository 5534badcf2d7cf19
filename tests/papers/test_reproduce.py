"""Recipes: every printed number has its cell, runs are shared and kept, and statuses follow from the numbers."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.core.threat import Linf
from verigrad.models.inspecting import weights_hash
from verigrad.models.twin import ode_blocks
from verigrad.papers import gradient_regularization, natural_robustness, optimal_control, sonet
from verigrad.papers.recipe import SCALES, Recipe
from verigrad.papers.reproduce import RECIPES, find, reproduce, results_file
from verigrad.papers.result import Measured, Status, compared
from verigrad.papers.sonet_nets import ALONE, FROZEN, STRONGEST
from verigrad.papers.workshop import Net, OutOfTime, Workshop
from verigrad.solvers import Fixed

INDEX = Path(__file__).parents[3] / "shared" / "papers" / "README.md"
TABLES = [*sonet.TABLES, *optimal_control.TABLES, *natural_robustness.TABLES, *gradient_regularization.TABLES]

NET = Net(model="small-conv:channels=4", data="digits", n=300, epochs=3, lr=0.01, optimiser="adam")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all recipes: what two of them share is made once."""
    return tmp_path_factory.mktemp("papers")


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.id for recipe in RECIPES])
def test_a_recipe_has_a_cell_for_every_printed_number(recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    told = reproduce(recipe, "smoke", folder)
    cells = {(tuple(cell["row"]), cell["column"], cell["printed"] is None): cell for cell in told["cells"]}
    for cell in (cell for table in TABLES if table.id == recipe.id for cell in table.cells()):
        got = cells[cell.row, cell.column, False]
        assert got["printed"] == cell.printed
        assert got["protocol"]
        assert got["ours"] is not None or got["reason"]
        assert got["status"] != "differs" or got["reason"]
    assert told["findings"] or told["series"]
    assert all(len(one["x"]) == len(one["y"]) > 0 for one in told["series"])
    written = json.loads(results_file(folder, recipe, "smoke").read_text())
    assert written == json.loads(json.dumps(told))
    assert {"date", "command", "machine", "versions", "seconds", "cpu_seconds"} <= set(written)


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_says_what_it_costs_or_needs(scale: str) -> None:
    assert [recipe.id for recipe in RECIPES if not (recipe.cost.get(scale) or recipe.needs.get(scale))] == []


@pytest.mark.skipif(not INDEX.exists(), reason="the papers' index is not beside this checkout")
def test_every_id_of_the_index_has_a_recipe() -> None:
    rows = [line.split("|")[1] for line in INDEX.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    ids = set()
    for names in (re.findall("`([^`]+)`", row) for row in rows):
        paper, slash, _ = names[0].partition("/")
        ids |= {name if "/" in name else f"{paper}/{name}" for name in names if slash}
    assert len(ids) > 15
    assert ids <= {recipe.id for recipe in RECIPES}


def test_the_sonet_tables_have_what_the_paper_lacks(folder: Path) -> None:
    for name in ("sonet/table1", "sonet/table2", "sonet/table3", "sonet/table4"):
        file = results_file(folder, find(name), "smoke")
        told = json.loads(file.read_text()) if file.exists() else reproduce(find(name), "smoke", folder)
        assert {cell["column"] for cell in told["cells"]} >= {FROZEN, ALONE, STRONGEST}
        by_row: dict[tuple[str, ...], dict[str, float]] = {}
        for cell in (cell for cell in told["cells"] if isinstance(cell["ours"], dict)):
            by_row.setdefault(tuple(cell["row"]), {})[cell["column"]] = cell["ours"]["value"]
        for values in (values for values in by_row.values() if STRONGEST in values):
            assert values[STRONGEST] <= min(value for column, value in values.items() if "L2" not in column), values


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
    assert one.settings == {"model": "small-conv", "data": "digits", "epochs": 1, "lr": 0.1}


def test_a_trial_counts_what_the_attacks_leave_together(tmp_path: Path) -> None:
    trial = Workshop(tmp_path).trial(NET, Linf(eps=0.08), n=30)
    weak, strong = trial.left("fgsm"), trial.left("pgd:steps=10")
    both = trial.left("fgsm", "pgd:steps=10")
    assert 0 < both.value <= min(weak.value, strong.value)
    assert weak.value < trial.natural().value
    assert both.n == 30


def test_attacks_that_were_made_cost_nothing_together(tmp_path: Path) -> None:
    moves: list[tuple[int, int]] = []
    shop = Workshop(tmp_path, moved=lambda done, total: moves.append((done, total)))
    trial = shop.trial(NET, Linf(eps=0.08), n=30)
    first, second = trial.attempt("fgsm"), trial.attempt("pgd:steps=3")
    moves.clear()
    both = trial.surviving("fgsm", "pgd:steps=3")
    assert moves == [(len(one.attempted), len(one.attempted)) for one in (first, second)]
    right = len(first.attempted)
    assert both.value == pytest.approx(100 * (right - len(first.broken | second.broken)) / 30)


def test_a_training_that_was_killed_goes_on(tmp_path: Path) -> None:
    whole = weights_hash(Workshop(tmp_path / "whole").net(NET))

    def kill(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workshop(tmp_path / "cut", moved=kill).net(NET)
    steps: list[int] = []
    again = Workshop(tmp_path / "cut", moved=lambda done, total: steps.append(done)).net(NET)
    assert steps[0] == 7  # two epochs of three steps were saved
    assert weights_hash(again) == whole


def test_an_attack_that_was_killed_goes_on(tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    trial = Workshop(tmp_path, moved=kill).trial(NET, Linf(eps=0.08), n=30, batch=10)
    Workshop(tmp_path).net(NET)
    with pytest.raises(KeyboardInterrupt):
        trial.left("pgd:steps=3")
    seen: list[int] = []
    shop = Workshop(tmp_path, moved=lambda done, total: seen.append(done))
    cut = shop.trial(NET, Linf(eps=0.08), n=30, batch=10).left("pgd:steps=3")
    assert seen[0] == 10
    assert cut == Workshop(tmp_path).trial(NET, Linf(eps=0.08), n=30, batch=10).left("pgd:steps=3")


def test_a_time_limit_stops_before_anything_new(tmp_path: Path) -> None:
    with pytest.raises(OutOfTime):
        Workshop(tmp_path, until=time.monotonic() - 1).net(NET)
    assert not any(tmp_path.iterdir())
    Workshop(tmp_path).net(NET)
    with pytest.raises(OutOfTime):
        Workshop(tmp_path, until=time.monotonic() - 1).trial(NET, Linf(eps=0.08), n=10).left("fgsm")


def test_a_twin_is_attacked_in_place_of_its_net(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    net = Net(model="skew-conv:channels=2", data="digits", n=50, epochs=1, lr=0.01)
    twin = shop.trial(net, Linf(eps=0.1), n=10, change="fixed-steps:method=euler,steps=1")
    assert all(isinstance(block.solver.control, Fixed) for block in ode_blocks(twin.model))
    assert not any(isinstance(block.solver.control, Fixed) for block in ode_blocks(shop.net(net)))
    assert twin.left("fgsm").value <= twin.natural().value


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


def test_data_that_are_missing_are_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--data names the folder that holds cifar10/"):
        reproduce(find("sonet/table1"), "gpu", tmp_path, data=tmp_path / "none")
    assert not any(tmp_path.iterdir())
