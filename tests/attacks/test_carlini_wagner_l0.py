"""CW-L0 and the greedy search over pixels, against the fewest pixels of a linear model."""

import itertools

import pytest
import torch
from controls import Coupled, Quantised
from nearest_errors import exact_pixels, linear, tanh_net

from verigrad.attacks.carlini_wagner_l0 import CarliniWagnerL0, _least
from verigrad.attacks.greedy_pixels import GreedyPixels
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2


def test_cw_l0_needs_the_fewest_pixels_of_a_linear_model_or_one_more():
    model, x, y, lead = linear()
    fewest = exact_pixels(model, x, lead)
    got = CarliniWagnerL0()(model, x, y, L0(pixels=9), generator=seeded(0, "cw", range(len(x))))
    assert got.broken.all()
    assert (got.distance >= fewest).all()
    assert (got.distance <= fewest + 1).all()
    assert (got.distance == fewest).double().mean() > 0.5


def test_cw_l0_freezes_the_smallest_shares_in_the_margin():
    gap = torch.tensor([0.5, 0.5, 0.5, 0.0]).reshape(1, 1, 2, 2)
    gradient = torch.tensor([0.001, -3.0, 1.0, 1.0]).reshape(1, 1, 2, 2)
    allowed = torch.tensor([True, True, True, False]).reshape(1, 1, 2, 2)
    assert _least(gap, gradient, allowed).flatten().tolist() == [False, True, False, False]  # ⌈0.3·√3⌉ = 1
    many = torch.full((1, 2, 8, 8), 0.5)
    large = many.clone()
    large[:, :, 0, :2] = 1e-4
    chosen = _least(many, large, torch.ones(1, 1, 8, 8, dtype=torch.bool))
    assert chosen.sum() == 3  # ⌈0.3·√64⌉ = 3, and two small ones with the first large one
    assert chosen[0, 0, 0, :2].all()
    large[:, :, 0, 1] = 1.0
    assert _least(many, large, torch.ones(1, 1, 8, 8, dtype=torch.bool)).sum() == 2


def test_greedy_takes_exactly_the_fewest_pixels_of_a_linear_model():
    model, x, y, lead = linear()
    fewest = exact_pixels(model, x, lead)
    for pixels in (1, 2):
        got = GreedyPixels()(model, x, y, L0(pixels=pixels), generator=seeded(0, "g", range(len(x))))
        assert torch.equal(got.broken, fewest <= pixels)
        assert torch.equal(got.distance[got.broken], fewest[got.broken])
        assert (got.distance <= pixels).all()
    assert (fewest == 2).any()


def test_greedy_with_sweeps_finds_what_all_corners_of_two_pixels_hold():
    """Exhaustive over both pixels and all corners on a small net: most must be found."""
    model, x, y = tanh_net(8, scale=1.0)
    got = GreedyPixels(candidates=9)(model, x, y, L0(pixels=2), generator=seeded(0, "g", range(len(x))))
    possible = []
    for image, label in zip(x, y, strict=True):
        points = []
        for a, b in itertools.combinations(range(9), 2):
            for colours in itertools.product((0.0, 1.0, None), repeat=4):
                point = image.clone().flatten(1)
                for (channel, place), colour in zip([(0, a), (1, a), (0, b), (1, b)], colours, strict=True):
                    if colour is not None:
                        point[channel, place] = colour
                points.append(point.reshape(image.shape))
        with torch.no_grad():
            possible.append(bool((model(torch.stack(points)).argmax(1) != label).any()))
    possible = torch.tensor(possible)
    assert not (got.broken & ~possible).any()
    assert (got.broken & possible).sum() >= 0.8 * possible.sum()
    assert possible.any()


def test_greedy_asks_where_there_is_no_gradient():
    model, x, y, _ = linear()
    y = model(x).argmax(1)
    got = GreedyPixels(candidates=9)(Quantised(model), x, y, L0(pixels=4), generator=seeded(0, "g", range(len(x))))
    assert got.broken.any()


def test_greedy_counts_its_passes():
    model, x, y, _ = linear()
    attack = GreedyPixels(candidates=5, sweeps=0)
    got = attack(model, x, y, L0(pixels=2), generator=seeded(0, "g", range(len(x))))
    # One look and five questions for each change, then the judging pass; an error shows at the look after it.
    expected = {0: 1 + 5 + 1, 1: 2 * 6 + 1, 2: 2 * 6 + 1}
    assert got.forwards.tolist() == [expected[int(d)] for d in got.distance.tolist()]
    coupled = attack(Coupled(model), x, y, L0(pixels=2), generator=seeded(0, "g", range(len(x))))
    assert set(coupled.forwards.tolist()) == {13}


def test_no_pixels_and_other_threats_and_bad_options():
    model, x, y, _ = linear()
    for attack in (GreedyPixels(), CarliniWagnerL0(steps=5, largest_constant=0.1)):
        got = attack(model, x, y, L0(pixels=0), generator=seeded(0, "g", range(len(x))))
        assert torch.equal(got.x_adv, x)
        with pytest.raises(BadInput, match="defined for L0"):
            attack(model, x, y, L2(eps=1.0), generator=seeded(0, "g", range(len(x))))
    for fields in ({"candidates": 0}, {"sweeps": -1}):
        with pytest.raises(BadInput, match=next(iter(fields))):
            GreedyPixels(**fields)
    for fields in ({"steps": 0}, {"constant": 0.0}, {"largest_constant": 1e-9}, {"constant_factor": 0.5}):
        with pytest.raises(BadInput, match=next(iter(fields))):
            CarliniWagnerL0(**fields)
