"""Adversarial training and its fast form: what is trained on, in which mode, and what is spared."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from controls import linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.momentum import MIFGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.base import Objective
from verigrad.training.objectives.fgsm_adversarial import FGSMAdversarial

N = 16
SHAPE = (2, 6, 6)
X = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 3
ATTACKS = (FGSM(), PGD(steps=4, keep="last"), PGD(steps=4), PGD(steps=2, restarts=3, keep="last"), MIFGSM(steps=3))
THREATS = (Linf(eps=0.05), L2(eps=0.5), L0(pixels=3))


class Net(nn.Module):
    """Remembers each batch that it saw, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.Linear(96, 3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        self.seen: list[tuple[bool, Tensor]] = []
        self.double().train()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, x.detach()))
        return self.head(F.relu(self.norm(self.conv(x))).flatten(1))


def streams(unit: str = "adversarial"):
    return seeded(0, unit, range(N))


def trained_on(objective: Objective) -> Tensor:
    """The images of the loss: the only ones seen in training mode."""
    model = Net()
    objective(model, X, Y, generator=streams())
    (x,) = [x for training, x in model.seen if training]
    return x


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_trains_on_what_the_attack_makes(attack: Attack, threat: Threat):
    """Sparing the attack's last judgement changes no image."""
    expected = attack(Net().eval(), X, Y, threat, generator=streams()).x_adv
    got = trained_on(Adversarial(threat=threat, attack=attack))
    assert torch.equal(got, expected)
    assert threat.contains(got, X).all()
    assert not torch.equal(got, X)


def test_the_attack_is_in_eval_mode_and_the_loss_in_training_mode():
    model = Net()
    Adversarial(threat=Linf(eps=0.05), attack=PGD(steps=3, keep="last"))(model, X, Y, generator=streams())
    assert [training for training, _ in model.seen] == [False, False, False, True]


@pytest.mark.parametrize(
    "attack", [FGSM(), PGD(steps=1, keep="last"), PGD(steps=5, keep="last")], ids=lambda attack: str(attack)
)
def test_the_loss_is_cross_entropy_of_the_perturbed(attack: Attack):
    objective = Adversarial(threat=Linf(eps=0.05), attack=attack)
    got = objective(Net(), X, Y, generator=streams())
    logits = Net()(trained_on(objective))
    assert got.total.item() == pytest.approx(F.cross_entropy(logits, Y).item(), rel=1e-12)
    assert got.parts["accuracy"].item() == pytest.approx((logits.argmax(1) == Y).double().mean().item())


def test_a_random_start_is_drawn():
    objective = Adversarial(threat=Linf(eps=0.1), attack=PGD(steps=1, step_size=1e-9, keep="last"))
    one, other = (objective(Net(), X, Y, generator=streams(unit)).total for unit in ("a", "b"))
    assert one != other


@pytest.mark.parametrize("norm", [Linf, L2], ids=lambda norm: norm.__name__)
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_on_a_linear_model_the_inner_maximum_is_reached(eps: float, norm: type[Linf] | type[L2]):
    """Without the box binding the worst logit gap is ⟨w, x⟩ + eps · ‖w‖, in the norm dual to the threat's."""
    _, _, w = linear_problem()
    x = torch.full((3, 2, 3, 3), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
    # Under L2 seven steps of 2.5 · eps / 7 come only near to the one best point.
    attack = PGD(steps=7, keep="last") if norm is Linf else PGD(steps=50, step_size=1.0, keep="last")
    loss = Adversarial(threat=norm(eps=eps), attack=attack)(model, x, y, generator=seeded(0, "linear", range(3)))
    gap = 0.5 * w.sum() + eps * (w.abs().sum() if norm is Linf else w.norm())
    assert loss.total.item() == pytest.approx(float(F.softplus(gap)), rel=1e-5)


def fast_step(threat_eps: float, alpha: float) -> Tensor:
    """Algorithm 3 of Wong et al. written out: δ uniform, δ ← clip(δ + α sign ∇ℓ, -eps, eps), all images in [0, 1]."""
    model = Net().eval()
    delta = streams().uniform(*SHAPE, low=-threat_eps, high=threat_eps, dtype=torch.float64)
    delta = (X + delta).clamp(0, 1) - X
    at = (X + delta).requires_grad_(True)
    (g,) = torch.autograd.grad(F.cross_entropy(model(at), Y), at)
    delta = (delta + alpha * g.sign()).clamp(-threat_eps, threat_eps)
    return (X + delta).clamp(0, 1)


@pytest.mark.parametrize("step", [1.25, 0.5])
def test_fast_training_takes_the_papers_step(step: float):
    eps = 8 / 255
    got = trained_on(FGSMAdversarial(threat=Linf(eps=eps), step=step))
    assert torch.allclose(got, fast_step(eps, step * eps), atol=1e-12)


def test_the_papers_step_is_ten_of_255():
    assert torch.allclose(trained_on(FGSMAdversarial(threat=Linf(eps=8 / 255))), fast_step(8 / 255, 10 / 255))


@pytest.mark.parametrize("threat", [*THREATS, Linf(eps=0.0)], ids=str)
def test_fast_training_stays_inside_any_threat(threat: Threat):
    got = trained_on(FGSMAdversarial(threat=threat))
    assert threat.contains(got, X).all()
    assert torch.equal(got, X) == (threat.size == 0)


@pytest.mark.parametrize("step", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_step_is_refused(step: float):
    with pytest.raises(BadInput, match="'step'") as caught:
        FGSMAdversarial(threat=Linf(eps=0.1), step=step)
    assert "\n" not in str(caught.value)
