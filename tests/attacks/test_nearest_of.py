"""The best distance per image over several attacks, and who found it."""

from __future__ import annotations

import pytest
import torch
from controls import Linear, linear_problem
from torch import Tensor

from verigrad.attacks.base import Attack
from verigrad.attacks.ddn import DDN
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.nearest_of import NearestOf
from verigrad.attacks.smallest_eps import SmallestEps
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.core.threat import L2, Linf

WIDE = L2(eps=1e3)


def problem() -> tuple[Linear, Tensor, Tensor]:
    x, y, w = linear_problem(12, dtype=torch.float64)
    return Linear(w, float((x.flatten(1) @ w).quantile(0.8)) + 0.3), x, y


MEMBERS: tuple[Attack, ...] = (SmallestEps(attack=FGSM(), rounds=5), DDN(steps=3), DDN(steps=8, radius=0.3))


def test_each_image_has_the_smallest_of_all_distances_and_its_finder():
    model, x, y = problem()
    seeds = seeded(4, "nearest", range(12)).bits(3).unbind(1)
    alone = [one(model, x, y, WIDE, generator=SampleGenerator(seed)) for one, seed in zip(MEMBERS, seeds, strict=True)]
    got, finder = NearestOf(attacks=MEMBERS).search(model, x, y, WIDE, generator=seeded(4, "nearest", range(12)))
    distances = torch.stack([torch.where(one.broken, one.distance, torch.inf) for one in alone])
    assert torch.allclose(got.distance, distances.amin(0))
    assert torch.equal(finder, distances.argmin(0))
    assert len(set(finder.tolist())) > 1
    assert torch.equal(got.forwards, sum(one.forwards for one in alone) + torch.ones_like(y))
    assert torch.equal(got.backwards, torch.stack([one.backwards for one in alone]).sum(0))


def test_an_image_that_nobody_breaks_has_no_finder():
    model, x, y = problem()
    got, finder = NearestOf(attacks=MEMBERS).search(model, x, y, L2(eps=0.05), generator=seeded(4, "n", range(12)))
    assert got.broken.any()
    assert not got.broken.all()
    assert torch.equal(finder >= 0, got.broken)
    assert torch.equal(got.x_adv[~got.broken], x[~got.broken])


def test_calling_it_is_searching():
    model, x, y = problem()
    attack = NearestOf(attacks=(SmallestEps(attack=FGSM(), rounds=4), FGSM()))
    called = attack(model, x, y, Linf(eps=1.0), generator=seeded(4, "n", range(12)))
    searched = attack.search(model, x, y, Linf(eps=1.0), generator=seeded(4, "n", range(12))).result
    assert all(torch.equal(one, other) for one, other in zip(called, searched, strict=True))


def test_an_empty_list_is_refused():
    with pytest.raises(BadInput, match="'attacks'"):
        NearestOf(attacks=())
