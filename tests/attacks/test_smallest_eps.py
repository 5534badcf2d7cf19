"""The smallest eps of a budget attack, against closed forms."""

from __future__ import annotations

import pytest
import torch
from controls import Coupled, Linear, best_l2, best_linf, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.attacks.smallest_eps import SmallestEps
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat


def problem(n: int = 8) -> tuple[Linear, Tensor, Tensor]:
    x, y, w = linear_problem(n, dtype=torch.float64)
    return Linear(w, float((x.flatten(1) @ w).quantile(0.7)) + 0.3), x, y


def run(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: Threat):
    return attack(model, x, y, threat, generator=seeded(1, "eps", range(len(x))))


@pytest.mark.parametrize(
    ("threat", "attack", "factor"),
    [
        (Linf(eps=1.0), FGSM(), 1.03),
        (L2(eps=1e3), PGD(steps=30, score="margin"), 1.1),
    ],
)
def test_it_nears_the_closest_error(threat: Threat, attack: Attack, factor: float):
    model, x, y = problem()
    best = best_linf if isinstance(threat, Linf) else best_l2
    got = run(SmallestEps(attack=attack), model, x, y, threat)
    wrong = model(x).argmax(1) != y
    assert wrong.any()
    assert got.broken.all()
    assert (got.distance[wrong] == 0).all()
    assert (got.forwards[wrong] == 2).all()
    for i in (~wrong).nonzero().flatten().tolist():
        image, w, distance = x[i].flatten().numpy(), model.w.detach().numpy(), got.distance[i].item()
        lead = model.threshold - float(x[i].flatten() @ model.w.detach())
        assert best(w, image, distance / factor) < lead <= best(w, image, distance * (1 + 1e-9))


def test_the_blend_finds_distances_between_levels():
    model, x, y = problem()
    coarse = run(SmallestEps(attack=FGSM(), rounds=3, blends=0), model, x, y, Linf(eps=1.0))
    blended = run(SmallestEps(attack=FGSM(), rounds=3, blends=8), model, x, y, Linf(eps=1.0))
    moved = coarse.distance > 0
    levels = torch.tensor([2.0 ** (10 * (k / 6 - 1)) for k in range(7)], dtype=torch.float64)
    assert torch.isclose(coarse.distance[moved, None], levels).any(1).all()
    assert (blended.distance <= coarse.distance).all()
    assert (blended.distance[moved] < 0.95 * coarse.distance[moved]).any()


def test_its_passes_are_those_of_the_model():
    model, x, y = problem()
    images: list[int] = []
    model.register_forward_hook(lambda part, inputs, output: images.append(len(inputs[0])))
    got = run(SmallestEps(attack=PGD(steps=3), rounds=4), model, x, y, L2(eps=1e3))
    assert sum(images) == int(got.forwards.sum())
    images.clear()
    joint = run(SmallestEps(attack=FGSM(), rounds=3), Coupled(model), x, y, Linf(eps=1.0))
    assert set(images) == {len(x)}
    assert set(joint.forwards.tolist()) == {len(images)}


def test_pixels_are_counted_whole():
    model, x, y = problem()
    got = run(SmallestEps(attack=PGD(steps=10, score="margin"), rounds=4), model, x, y, L0(pixels=9))
    assert got.broken.all()
    assert torch.equal(got.distance, got.distance.round())
    w = model.w.detach()
    gain = torch.where(w > 0, (1 - x.flatten(1)) * w, -x.flatten(1) * w).reshape(x.shape).sum(1).flatten(1)
    most = gain.sort(1, descending=True).values.cumsum(1)
    fewest = (most < (model.threshold - x.flatten(1) @ w)[:, None]).sum(1) + 1
    moved = got.distance > 0
    assert (got.distance >= fewest)[moved].all()
    assert (got.distance <= fewest + 2)[moved].all()


def test_the_threat_cuts_and_failures_keep_the_image():
    model, x, y = problem()
    wide = run(SmallestEps(attack=FGSM(), rounds=5), model, x, y, Linf(eps=1.0))
    eps = float(wide.distance.median())
    cut = run(SmallestEps(attack=FGSM(), rounds=5), model, x, y, Linf(eps=eps))
    assert torch.equal(cut.broken, wide.distance <= eps)
    assert torch.equal(cut.x_adv[~cut.broken], x[~cut.broken])
    never = Linear(torch.zeros(18, dtype=torch.float64), 1.0)
    assert not run(SmallestEps(attack=FGSM(), rounds=3), never, x, y, Linf(eps=1.0)).broken.any()


@pytest.mark.parametrize("values", [{"rounds": 0}, {"blends": -1}])
def test_bad_values_are_refused(values: dict[str, int]):
    with pytest.raises(BadInput, match="'rounds'"):
        SmallestEps(**values)  # type: ignore[arg-type]
