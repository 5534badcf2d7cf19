"""MI-FGSM against a loop written from the paper, and the faults that libraries had."""

import pytest
import torch
import torch.nn.functional as F
from controls import Coupled, Linear, NonFiniteGradient, Saturated, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Status
from verigrad.attacks.momentum import MIFGSM, unit_l1
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 24), nn.Tanh(), nn.Linear(24, 4)).double()


def from_the_paper(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, mu: float) -> Tensor:
    """Dong et al. 2018, Algorithm 1, one image at a time, with the sum of absolute values as the norm."""
    made = []
    for image, label in zip(x, y, strict=True):
        here, g = image.clone(), torch.zeros_like(image)
        for _ in range(steps):
            leaf = here.clone().requires_grad_(True)
            F.cross_entropy(model(leaf[None]), label[None]).backward()
            g = mu * g + leaf.grad / leaf.grad.abs().sum()
            here = here + eps / steps * (g.sign() if norm == "linf" else g / g.norm())
            delta = here - image
            delta = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / float(delta.norm()))
            here = (image + delta).clamp(0, 1) if norm == "linf" else image + delta
        made.append(here)
    return torch.stack(made)


def run(attack: MIFGSM, model: nn.Module, x: Tensor, y: Tensor, threat, ids=None):
    return attack(model, x, y, threat, generator=seeded(0, "mi", range(len(x)) if ids is None else ids))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_the_last_iterate_is_the_papers(norm: str, momentum: float):
    model = net()
    x = linear_problem(12, dtype=torch.float64)[0] * 0.4 + 0.3  # inside the box, where the ball alone is projected onto
    y = model(x).argmax(1)
    threat = Linf(eps=0.1) if norm == "linf" else L2(eps=0.25)
    got = run(MIFGSM(steps=9, momentum=momentum, keep="last"), model, x, y, threat)
    wanted = from_the_paper(model, x, y, norm, threat.size, 9, momentum)
    assert (got.x_adv - wanted).norm() < 1e-9 * wanted.norm()
    assert (got.x_adv - x).norm() > 0.1
    assert got.backwards.tolist() == [9] * 12
    assert got.forwards.tolist() == [10] * 12


def test_momentum_changes_the_way():
    model = net()
    x = linear_problem(12, dtype=torch.float64)[0]
    y = model(x).argmax(1)
    ends = [run(MIFGSM(momentum=m, keep="last"), model, x, y, L2(eps=0.5)).x_adv for m in (0.0, 0.5, 1.0)]
    assert (ends[0] - ends[1]).norm() > 1e-3
    assert (ends[1] - ends[2]).norm() > 1e-3


def test_never_weaker_than_the_last_iterate():
    model = net().float()
    x = linear_problem(200)[0]
    y = model(x).argmax(1)
    for threat in (Linf(eps=0.1), L2(eps=0.3)):
        best, last = (run(MIFGSM(keep=keep), model, x, y, threat) for keep in ("best", "last"))
        assert 0 < last.broken.sum() < 200
        assert (best.broken | ~last.broken).all()
        assert best.backwards.sum() < last.backwards.sum()


def test_the_norm_is_each_samples_own():
    """Saturation makes one sample's gradient 1e30 times as small: its momentum is worth as much as its neighbour's."""
    gradient = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    scaled = gradient * torch.tensor([1.0, 1e-30, 1e-42]).reshape(3, 1, 1, 1)
    unit = unit_l1(scaled)
    assert unit[:2].flatten(1).abs().mean(1).tolist() == pytest.approx([1.0, 1.0])
    assert unit[2].abs().mean().item() == pytest.approx(1.0)  # subnormal numbers
    assert torch.allclose(unit[0], unit_l1(gradient)[0])
    assert torch.allclose(unit[1], unit_l1(gradient)[1], rtol=1e-5)


class Plateau(nn.Module):
    """Logits (0, f) whose slope is nonzero only while the first pixel is below 0.55."""

    def forward(self, x: Tensor) -> Tensor:
        f = x.flatten(1)[:, 0].clamp(max=0.55) * 10 - 9
        return torch.stack([torch.zeros_like(f), f], 1)


def test_a_zero_gradient_leaves_the_momentum_finite_and_the_sample_moving():
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    got = run(MIFGSM(steps=5, step_size=0.1, keep="last"), Plateau(), x, y, Linf(eps=0.5))
    assert torch.isfinite(got.x_adv).all()
    assert got.status.item() == Status.ZERO_GRADIENT
    assert got.x_adv[0, 0, 0, 0].item() == pytest.approx(1.0)  # five steps of 0.1, one of them with a gradient
    assert got.x_adv[0, 0, 1].tolist() == [0.5, 0.5]
    still = run(MIFGSM(steps=5, step_size=0.1, momentum=0.0, keep="last"), Plateau(), x, y, Linf(eps=0.5))
    assert still.x_adv[0, 0, 0, 0].item() == pytest.approx(0.6)


def test_gradients_that_are_not_finite_add_nothing():
    x, y, w = linear_problem()
    got = run(MIFGSM(), NonFiniteGradient(Linear(w, 10.0)), x, y, Linf(eps=0.1))
    assert torch.equal(got.x_adv, x)
    assert (got.status == Status.NON_FINITE_GRADIENT).all()


def test_the_margin_breaks_what_saturation_hides():
    x, y, w = linear_problem(100)
    scores = x.flatten(1) @ w
    model, threat = Saturated(Linear(w, float(scores.max()) + 0.5)), Linf(eps=0.1)
    left = [int((~run(MIFGSM(score=s), model, x, y, threat).broken).sum()) for s in ("margin", "cross_entropy")]
    assert left[0] < left[1]


def test_a_random_start_is_each_samples_own_and_inside():
    x, y, w = linear_problem()
    attack = MIFGSM(steps=1, step_size=1e-6, random_start=True)
    whole = run(attack, Linear(w, 10.0), x, y, Linf(eps=0.1))
    assert (whole.distance > 0.05).all()
    part = run(attack, Linear(w, 10.0), x[[5, 2]], y[[5, 2]], Linf(eps=0.1), [5, 2])
    assert torch.allclose(part.x_adv, whole.x_adv[[5, 2]])


def test_coupled_samples_that_err_only_rest():
    x, y, w = linear_problem()
    model = Coupled(Linear(w, float((x.flatten(1) @ w).median()) + 0.2), strength=-0.9)
    got = run(MIFGSM(steps=40, score="margin"), model, x, y, Linf(eps=0.1))
    with torch.no_grad():
        assert torch.equal(got.broken, model(got.x_adv).argmax(1) == 1)
    assert len(set(got.forwards.tolist())) == 1


@pytest.mark.parametrize(
    "fields",
    [{"steps": 0}, {"step_size": 0.0}, {"momentum": -1.0}, {"momentum": float("nan")}, {"score": "l"}, {"keep": "a"}],
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        MIFGSM(**fields)
