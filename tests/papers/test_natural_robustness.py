"""The natural-robustness recipes: the paper's settings, the schemes' known orders, and what a curve counts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from verigrad import catalog
from verigrad.papers import natural_robustness_figures as figures
from verigrad.papers.natural_robustness import TABLE2
from verigrad.papers.natural_robustness_figures import CURVES
from verigrad.papers.natural_robustness_settings import HALVES, MODELS, half
from verigrad.papers.natural_robustness_sweep import SIZES, STEPS, SWEEPS
from verigrad.papers.natural_robustness_table2 import TABLE2_SETTINGS, Trained
from verigrad.papers.natural_robustness_theorems import theorems
from verigrad.papers.net import Net
from verigrad.papers.recipe import SCALES
from verigrad.papers.result import Finding, Measured, Result, Series
from verigrad.papers.workshop import Workshop
from verigrad.training.schedule import NATURAL_ROBUSTNESS_CIFAR, NATURAL_ROBUSTNESS_MNIST


def nets(scale: str) -> Iterator[Net]:
    for name in HALVES:
        yield from (half(scale, name).net(model) for model in MODELS)
    yield from (TABLE2_SETTINGS[scale].trained(training) for _, training in TABLE2.rows() if training != "natural")
    yield SWEEPS[scale].trained(SWEEPS[scale].maker)
    yield from map(SWEEPS[scale].stepped, STEPS)


@pytest.mark.parametrize("scale", SCALES)
def test_all_that_a_scale_names_is_in_the_catalog(scale: str) -> None:
    for net in nets(scale):
        assert net.recipe.epochs == net.epochs
        assert net.method is not None
        with torch.device("meta"):
            size, channels = (8, 1) if net.data == "digits" else (32, 3)
            catalog.build("model", catalog.complete(net.model, in_channels=channels, classes=10, size=size))


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "schedule", "convolutions", "channels", "t1"),
    [
        ("MNIST", 100, 1e-3, NATURAL_ROBUSTNESS_MNIST, 4, 128, 100.0),
        ("CIFAR-10", 200, 1e-4, NATURAL_ROBUSTNESS_CIFAR, 5, 256, 500.0),
    ],
)
def test_the_paper_scale_is_table_a1(
    name: str, epochs: int, lr: float, schedule: object, convolutions: int, channels: int, t1: float
) -> None:
    net = half("paper", name).net("neural ODE")
    assert (net.epochs, net.lr, net.batch, net.optimiser) == (epochs, lr, 32, "adam")
    assert net.recipe.schedule == schedule
    with torch.device("meta"):
        model = catalog.build("model", net.model)
    assert len(model.block.field.convolutions) == convolutions
    assert model.block.field.convolutions[0].out_channels == channels
    assert model.block.solver.t1 == t1


def test_the_paper_scale_attacks_as_the_paper() -> None:
    assert [half("paper", name).steps for name in HALVES] == [40, 40]
    assert [half("paper", name).queries for name in HALVES] == [1000, 1000]
    assert (len(STEPS), STEPS[0], STEPS[-1]) == (11, 1.0, pytest.approx(1e-10))
    assert SIZES == (0.1, 0.3, 0.5)
    assert CURVES["MNIST"][-1] == 0.5
    assert CURVES["CIFAR-10"][-1] * 255 == pytest.approx(50)
    # He et al. 2015: 64,000 batches of 128 of 50,000 images.
    assert 64000 <= SWEEPS["paper"].epochs * math.ceil(50000 / 128) < 64000 + math.ceil(50000 / 128)


def test_yopo_is_an_algorithm_whose_rate_is_for_a_sum_of_gradients() -> None:
    at = TABLE2_SETTINGS["paper"]
    assert isinstance(at, Trained)
    yopo, pgd = at.trained("YOPO-5-3"), at.trained("PGD-10")
    assert (yopo.method.passes, yopo.method.steps) == (5, 3)
    assert yopo.lr == pytest.approx(pgd.lr / 5)
    assert (pgd.method.attack.steps, at.trained("TRADES-10").method.steps) == (10, 10)
    assert pgd.method.threat.eps == pytest.approx(8 / 255, abs=1e-6)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("natural-robustness"))


@pytest.fixture(scope="module")
def grown(shop: Workshop) -> list[Result | Finding | Series]:
    torch.set_num_threads(1)
    return list(theorems(shop, "smoke"))


def test_distances_to_the_methods_fall_as_they_must(grown: list[Result | Finding | Series]) -> None:
    """Powers known from docs/math/schemes.md: h³ for a linear f alone, h where f(0) ≠ 0, h⁰, h²."""
    told = [one for one in grown if not isinstance(one, Series)]
    cells = {one.row: one.ours.value for one in told if isinstance(one, Result) and isinstance(one.ours, Measured)}
    assert cells["PolyNet", "linear f"] == pytest.approx(3, abs=0.2)
    assert cells["PolyNet", "tanh f"] == pytest.approx(1, abs=0.2)
    assert cells["FractalNet", "tanh f"] == pytest.approx(0, abs=0.2)
    assert cells["RevNet", "tanh f"] == pytest.approx(2, abs=0.2)
    words = ("PolyNet's block", "FractalNet's block", "RevNet's block")
    assert [one.holds for one in told if isinstance(one, Finding) and one.claim.startswith(words)] == [
        True,
        False,
        False,
        False,
    ]


def test_errors_are_told_with_bounds_that_they_keep(grown: list[Result | Finding | Series]) -> None:
    told = grown
    worst = [
        one.ours.value
        for one in told
        if isinstance(one, Result)
        and one.column == "largest error over its step bound"
        and isinstance(one.ours, Measured)
    ]
    assert len(worst) == len((1.0, 0.1, 0.01)) + len(("dopri5", "Euler"))
    assert all(0 < value <= 1.0001 for value in worst)
    claims = {one.claim: one.holds for one in told if isinstance(one, Finding)}
    assert not next(holds for claim, holds in claims.items() if claim.startswith("With h = 1 the bound"))
    curves = [one for one in told if isinstance(one, Series)]
    assert {one.figure for one in curves} == {"ResNet56, h = 1", "neural ODE, dopri5"}
    for error, bound in zip(curves[::2], curves[1::2], strict=True):
        assert error.y[0] == bound.y[0] == 0.0
        assert all(a <= b + 1e-4 for a, b in zip(error.y, bound.y, strict=True))


def test_a_walk_counts_errors_no_farther_than_eps(shop: Workshop) -> None:
    told = list(figures.figure3(shop, "smoke"))
    for one in (one for one in told if isinstance(one, Series)):
        assert list(one.y) == sorted(one.y, reverse=True)
        assert one.x[0] == 0.0
    at = half("smoke", "MNIST")
    clean = at.trial(shop, "neural ODE", 1.0, walked=True).natural()
    first = next(one for one in told if isinstance(one, Series) and one.name == "neural ODE")
    assert first.y[0] == clean.value


def test_the_maker_of_the_adversarial_images_has_three_blocks() -> None:
    at = SWEEPS["paper"]
    with torch.device("meta"):
        maker, net = (catalog.build("model", net.model) for net in (at.trained(at.maker), at.stepped(0.1)))
    assert [len(stage) for stage in maker.stages] == [1, 1, 1]
    assert [len(stage) for stage in net.stages] == [9, 9, 9]
