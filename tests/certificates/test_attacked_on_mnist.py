"""On 200 images of MNIST no attack finds an error inside a proved radius, nor one of the smoothed classifier."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.catalog import build
from verigrad.certificates.base import Honesty
from verigrad.certificates.smoothed_prediction import predict_smoothed
from verigrad.certificates.smoothing import Smoothing
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf
from verigrad.data.load import load_data
from verigrad.models.twin import ode_blocks
from verigrad.training.objectives.natural import Natural
from verigrad.training.objectives.noise import GaussianNoise
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
NETS = {
    "conv": "small-conv:channels=8",
    # Equal steps, so that its bound is proved; a frozen grid is then a twin like the model itself.
    "ode": "skew-linear:method=euler,steps=4",
}
INSIDE = {
    "linf": ("pgd:steps=20,score=margin", "cw-linf"),
    "l2": ("pgd:steps=20,score=margin",),
}
FROZEN = "on-twin:attack=pgd(steps=20),change=frozen-grid"
# Attacks that look for the nearest error of all, with no eps.
NEAREST = {"linf": "fmn", "l2": "cw-l2"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}"),
]


class Trained(NamedTuple):
    """A classifier and 200 test images."""

    model: nn.Module
    x: Tensor
    y: Tensor


def trained(spec: str, objective) -> Trained:
    data, test = load_data(f"mnist:{MNIST}", "train", n=4000), load_data(f"mnist:{MNIST}", n=200)
    model = initialised(lambda: build("model", spec), 0)
    train(model, data.x, data.y, objective, Recipe(epochs=2, batch=50, lr=0.05))
    return Trained(model.eval(), test.x, test.y)


@pytest.fixture(scope="module", params=list(NETS))
def net(request) -> Trained:
    return trained(NETS[request.param], Natural())


def broken(found: Trained, spec: str, norm: str, eps: Tensor) -> Tensor:
    """(N,) whether an attack breaks an image within its radius, rounded down to the least of twenty alike."""
    attack, ball = build("attack", spec), Linf if norm == "linf" else L2
    streams = seeded(0, spec, range(len(eps)))
    found_broken = torch.zeros(len(eps), dtype=torch.bool)
    for rows in eps.argsort().split(20):
        threat = ball(eps=float(eps[rows].min()))
        found_broken[rows] = attack(found.model, found.x[rows], found.y[rows], threat, generator=streams[rows]).broken
    return found_broken


@pytest.mark.parametrize("spec", ["interval", "spectral:norm=linf", "spectral:norm=l2"])
def test_no_attack_finds_an_error_inside_a_sound_radius(net, spec) -> None:
    certificate = build("certificate", spec)
    if spec == "interval" and ode_blocks(net.model):
        pytest.skip("interval bounds cannot pass an ODE block")
    got = certificate(net.model, net.x, net.y, generator=seeded(0, "c", range(len(net.x))))
    assert got.honesty is Honesty.SOUND
    rows = (got.radius > 0).nonzero().squeeze(1)
    assert len(rows) > 100
    # In float32 an adversarial example may lie an ulp outside its ball.
    some = Trained(net.model, net.x[rows], net.y[rows])
    radius = got.radius[rows] * (1 - 1e-6)
    for attack in INSIDE[certificate.norm] + ((FROZEN,) if ode_blocks(net.model) else ()):
        assert not broken(some, attack, certificate.norm, radius).any(), attack
    # The attacks are no bystanders: much farther out they find errors.
    assert broken(some, INSIDE[certificate.norm][0], certificate.norm, torch.full_like(radius, 0.3)).any()
    nearest = build("attack", NEAREST[certificate.norm])
    far = Linf(eps=1.0) if certificate.norm == "linf" else L2(eps=28.0)
    found = nearest(some.model, some.x, some.y, far, generator=seeded(0, "near", range(len(rows))))
    assert found.broken.any()
    assert (found.distance[found.broken] >= radius[found.broken]).all()


def smoothed_attack(found: Trained, radius: Tensor, sigma: float, draws: int = 16) -> Tensor:
    """Ascent on the loss of the mean softmax over fixed draws of noise, inside a radius (Salman et al. 2019)."""
    draw = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(draws, *found.x.shape, generator=draw)
    x_adv = found.x.clone()
    for _ in range(20):
        x_adv.requires_grad_()
        mean = torch.stack([found.model(x_adv + one).softmax(1) for one in noise]).mean(0)
        (g,) = torch.autograd.grad(F.nll_loss(mean.log(), found.y, reduction="sum"), x_adv)
        eps = radius.to(x_adv).reshape(-1, 1, 1, 1)
        step = 0.2 * eps * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp(min=1e-20)
        move = (x_adv + step).detach() - found.x
        length = move.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp(min=1e-20)
        x_adv = found.x + move * (eps / length).clamp(max=1.0)
    return x_adv.detach()


def test_an_attack_on_the_smoothed_classifier_finds_no_error_inside_its_radius() -> None:
    sigma = 0.25
    net = trained(NETS["conv"], GaussianNoise(sigma=sigma))
    certificate = Smoothing(sigma=sigma, radii=(0.0, 0.25, 0.5), test="betting", n=20_000)
    got = certificate(net.model, net.x, net.y, generator=seeded(0, "c", range(len(net.x))))
    rows = (got.radius > 0).nonzero().squeeze(1)
    assert len(rows) > 100
    some = Trained(net.model, net.x[rows], net.y[rows])

    def other_class(radius: Tensor) -> Tensor:
        x_adv = smoothed_attack(some, radius, sigma)
        told = predict_smoothed(some.model, x_adv, sigma=sigma, n=1000, generator=seeded(1, "p", range(len(rows))))
        return ~told.abstained & (told.predicted != some.y)

    assert other_class(got.radius[rows] * (1 - 1e-6)).sum() <= 0.002 * len(rows)
    assert other_class(torch.full((len(rows),), 3.0)).float().mean() > 0.1
