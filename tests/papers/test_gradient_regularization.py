"""The recipes of the gradient-regularization paper: whose net is whose, and what is counted."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from verigrad.core.errors import BadInput
from verigrad.papers.gradient_regularization import B3, B4, B6, TABLE1, TABLE2
from verigrad.papers.gradient_regularization_measures import (
    Near,
    contradicted,
    error_at,
    hours,
    mean,
    nearest,
    uncertified,
)
from verigrad.papers.gradient_regularization_recipes import imagenet
from verigrad.papers.gradient_regularization_settings import SETTINGS, UNDEFENDED
from verigrad.papers.gradient_regularization_steps import DOUBLE, _claims
from verigrad.papers.result import Finding, Result, Status
from verigrad.papers.workshop import Workshop
from verigrad.training.algorithms.free import Free
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.gradient_penalty import GradientPenalty

AT = SETTINGS["cpu"]
ROWS = {row[0] for table in (TABLE1, TABLE2, B3, B4, B6) for row in table.rows()}


def test_every_row_has_a_net_of_its_own_and_the_same_training_is_one_net() -> None:
    names = {row: AT.net(row).name for row in ROWS}
    same = [{"l1 finite differences λ=1 h=0.1", "h=0.1"}, {"l1 double backprop λ=1", DOUBLE}]
    assert len(set(names.values())) == len(ROWS) - len(same)
    for rows in same:
        assert len({names[row] for row in rows}) == 1
    assert AT.net("l2 λ=1").name == names["l2 finite differences λ=1"]
    assert AT.net(UNDEFENDED, seed=1).name != names[UNDEFENDED]


def test_the_words_of_a_row_say_how_it_is_trained() -> None:
    penalty = AT.net("l1 finite differences λ=0.1").method
    assert penalty == GradientPenalty(norm="l1", strength=0.1, h=0.01)
    assert AT.net("h=1e-3").method == GradientPenalty(norm="l1", strength=1.0, h=1e-3)
    assert AT.net("l2 double backprop λ=1").method == GradientPenalty(norm="l2", strength=1.0, by="double-backprop")
    steps = AT.net("7-step Linf 2/255").method
    assert isinstance(steps, Adversarial)
    assert steps.threat.size == AT.sizes["2/255"]
    free = AT.net("free m=8")
    assert isinstance(free.method, Free)
    assert (free.method.replays, free.epochs) == (8, AT.epochs // 8)
    with pytest.raises(BadInput, match="no training"):
        AT.net("dropout")


def test_the_papers_scale_has_the_papers_sizes() -> None:
    at = SETTINGS["paper"]
    assert at.sizes == {"2/255": 2 / 255, "8/255": 8 / 255}
    assert (at.model, at.epochs, at.n, at.at_steps) == ("resnext34", 200, 1000, 7)


def test_errors_are_counted_up_to_and_with_their_distance() -> None:
    near = Near((0.0, 0.1, 0.2, math.inf), Counter())
    assert [error_at(near, eps).value for eps in (0.0, 0.1, 0.15, 0.2, 9.0)] == [25.0, 50.0, 50.0, 75.0, 75.0]
    assert uncertified((0.0, 0.1, 0.2), 0.2).value == pytest.approx(200 / 3)
    # A radius that an error just reaches is not contradicted; further images were not attacked.
    assert contradicted((0.0, 0.1, 0.21, 5.0, 7.0), near).value == 25.0


def test_a_mean_leaves_out_what_was_not_found_and_has_its_normal_interval() -> None:
    found = mean((1.0, 2.0, 3.0, math.inf))
    assert (found.value, found.n) == (2.0, 3)
    assert found.high is not None
    assert found.high - found.value == pytest.approx(1.96 * 1.0 / math.sqrt(3))


def test_training_time_is_a_median_of_ratios_in_the_papers_hours(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    file = tmp_path / "timings" / f"{AT.net('free m=2').name}.json"
    file.parent.mkdir()
    file.write_text(json.dumps([float(k) for k in range(1, 21)]))
    took = hours(shop, AT, "free m=2")
    # Of 20 values the 6th and the 15th hold the median with 95.9 %; half the epochs of two updates each.
    assert took == pytest.approx((2.06 * 10.5 / 2, 2.06 * 6 / 2, 2.06 * 15 / 2, 20))
    assert hours(shop, AT, UNDEFENDED) is None


def test_the_nearest_error_is_the_nearest_of_all_attacks(tmp_path: Path) -> None:
    at = SETTINGS["smoke"]
    trial = at.attacked(Workshop(tmp_path), UNDEFENDED, "linf")
    attacks = ("boundary:queries=30,starts=2", "boundary:queries=60,starts=2")
    near = nearest(trial, attacks)
    each = [trial.nearest(attack) for attack in attacks]
    right = set(trial.attempt(attacks[0]).attempted)
    for i, distance in enumerate(near.distances):
        wanted = min((one[i][0] for one in each if i in one), default=math.inf) if i in right else 0.0
        assert distance == wanted
    assert near.finders.total() == sum(0 < one < math.inf for one in near.distances)


@pytest.mark.parametrize(("errors", "holds"), [((50, 40, 20, 30, 45), True), ((20, 30, 40, 45, 50), False)])
def test_a_least_error_at_an_end_is_no_minimum_in_the_middle(errors: tuple[int, ...], holds: bool) -> None:
    sweep = [f"h=1e-{k}" for k in range(5)]
    means = {
        row: {"clean error %": 5.0, "error 2/255 %": float(value), "error 8/255 %": float(value)}
        for row, value in zip([*sweep, DOUBLE, UNDEFENDED], [*errors, 60, 90], strict=True)
    }
    claims = [one for one in _claims(means, sweep, 1) if "in the middle" in one.claim]
    assert [one.holds for one in claims] == [holds, holds]


def test_imagenet_is_not_run_and_says_what_it_needs(tmp_path: Path) -> None:
    told = list(imagenet(Workshop(tmp_path), "paper"))
    cells = [one for one in told if isinstance(one, Result)]
    assert len(cells) == 18 + 15 + 12
    assert all(one.status == Status.NOT_RUN and "ImageNet-1k" in one.reason for one in cells)
    assert [one.holds for one in told if isinstance(one, Finding)] == [None]
    assert not any(tmp_path.iterdir())
