"""The optimal-control recipes: the paper's own settings, and what stands for eigenvalues of a layer that has none."""

from __future__ import annotations

import pytest
import torch

from verigrad import catalog
from verigrad.core.threat import L0
from verigrad.papers.optimal_control import COST, TABLE1
from verigrad.papers.optimal_control_recipes import cost, figure1, table1
from verigrad.papers.optimal_control_settings import ADVERSARIAL, SETTINGS, THEIRS, VANILLA
from verigrad.papers.recipe import SCALES
from verigrad.papers.result import Finding, Measured, Result, Series
from verigrad.papers.workshop import Workshop
from verigrad.training.schedule import OPTIMAL_CONTROL


@pytest.mark.parametrize("scale", SCALES)
def test_all_that_a_scale_names_is_in_the_catalog(scale: str) -> None:
    at = SETTINGS[scale]
    for column in TABLE1.columns:
        net = at.net(column)
        assert net.recipe.epochs == at.epochs
        assert net.method is not None
    catalog.build("attack", at.walk)
    with torch.device("meta"):
        catalog.build("model", at.model)


def test_the_paper_scale_is_section_5_1() -> None:
    at = SETTINGS["paper"]
    nets = {column: at.net(column) for column in TABLE1.columns}
    assert {(net.epochs, net.batch, net.lr) for net in nets.values()} == {(150, 200, 0.01)}
    for net in nets.values():
        schedule = net.recipe.schedule
        assert all(schedule(epoch / 150) == pytest.approx(OPTIMAL_CONTROL(epoch / 150)) for epoch in range(150))
    assert nets[ADVERSARIAL].method.attack.steps == 10
    assert nets[ADVERSARIAL].method.threat.eps == 0.1
    assert (nets[VANILLA].weight_decay, nets[THEIRS].method.alpha) == (1e-3, 1e-3)
    with torch.device("meta"):
        assert sum(weight.numel() for weight in catalog.build("model", at.model).parameters()) == 11_173_962


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    torch.set_num_threads(1)
    return Workshop(tmp_path_factory.mktemp("optimal-control"))


def test_every_attack_leaves_a_share_and_the_strongest_the_least(shop: Workshop) -> None:
    told = list(table1(shop, "smoke"))
    cells = {(one.row[0], one.column): one for one in told if isinstance(one, Result)}
    assert {row for row, _ in cells} == {"none", "FGSM", "PGD-10", "C&W", "C&W, 5% of the pixels", "strongest"}
    values = {key: one.ours.value for key, one in cells.items() if isinstance(one.ours, Measured)}
    for column in TABLE1.columns:
        assert values["strongest", column] <= min(values["FGSM", column], values["PGD-10", column])
        assert values["C&W", column] <= values["C&W, 5% of the pixels", column]
    assert isinstance(shop.trial(SETTINGS["smoke"].net(VANILLA), L0(pixels=64), n=3).threat, L0)


def test_the_points_are_eigenvalues_of_the_layer_padded_to_a_square(shop: Workshop) -> None:
    told = list(figure1(shop, "smoke"))
    points = {(one.figure, one.name): one for one in told if isinstance(one, Series)}
    layer = shop.net(SETTINGS["smoke"].net(THEIRS)).get_submodule("classifier")
    weight = layer.get_parameter("weight").detach().double()
    padded = torch.zeros(max(weight.shape), max(weight.shape), dtype=torch.float64)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    found = torch.complex(*(torch.tensor(axis) for axis in points["eigenvalues", "theirs"][3:5]))
    apart = (torch.linalg.eigvals(padded)[:, None] - found[None, :]).abs()
    assert bool((apart.amin(0) < 1e-6).all())
    sizes = torch.tensor(points["singular values", "theirs"].y)
    assert float(sizes.max()) <= 1 + 1e-4
    assert float(found.abs().max()) <= float(sizes.max())
    circle = points["eigenvalues", "unit circle"]
    assert all(abs(x * x + y * y - 1) < 1e-9 for x, y in zip(circle.x, circle.y, strict=True))


def test_the_cost_is_a_ratio_of_times(shop: Workshop) -> None:
    told = list(cost(shop, "smoke"))
    ours = {one.row[0]: one.ours.value for one in told if isinstance(one, Result) and isinstance(one.ours, Measured)}
    (row,) = COST.rows()
    assert ours[row[0]] == pytest.approx(ours["adversarial training"] / ours["theirs"])
    (claim,) = [one for one in told if isinstance(one, Finding)]
    assert claim.holds == (5 <= ours[row[0]] <= 15)
