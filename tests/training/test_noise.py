"""Gaussian noise: its units, its law, its streams, and the closed form on a linear model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.training.objectives.natural import Natural
from verigrad.training.objectives.noise import GaussianNoise

N = 64
X = torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3


class Seen(nn.Module):
    """A linear classifier that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return self.head(x.flatten(1))


def shown(objective: GaussianNoise, rows: slice | Tensor = slice(None), unit: str = "noise") -> Tensor:
    model = Seen()
    objective(model, X[rows], Y[rows], generator=seeded(0, unit, range(N))[rows])
    (x,) = model.shown
    return x


@pytest.mark.parametrize("sigma", [0.1, 0.25, 1.0])
def test_the_noise_is_normal_with_sigma_in_pixels(sigma: float):
    """4,096 draws: mean within 4 standard errors, deviation within 5 %, fourth moment within 20 %."""
    n = (shown(GaussianNoise(sigma=sigma)) - X).flatten() / sigma
    assert abs(n.mean().item()) < 4 / math.sqrt(len(n))
    assert n.std().item() == pytest.approx(1.0, rel=0.05)
    assert n.pow(4).mean().item() == pytest.approx(3.0, rel=0.2)


def test_noise_leaves_the_box_unless_it_is_cut():
    free, cut = shown(GaussianNoise(sigma=0.5)), shown(GaussianNoise(sigma=0.5, clamp=True))
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(cut, free.clamp(0, 1))


def test_each_sample_draws_from_its_own_stream():
    whole = shown(GaussianNoise(sigma=0.25))
    rows = torch.tensor([40, 3, 17])
    assert torch.allclose(shown(GaussianNoise(sigma=0.25), rows), whole[rows], atol=1e-6)
    n = (whole - X).flatten(1)
    assert (torch.corrcoef(n) - torch.eye(N)).abs().max() < 0.7  # no two images share their noise
    assert not torch.equal(shown(GaussianNoise(sigma=0.25), unit="next step"), whole)


def test_no_noise_is_natural():
    model = Seen()
    generator = seeded(0, "noise", range(N))
    assert torch.equal(
        GaussianNoise(sigma=0.0)(model, X, Y, generator=generator).total,
        Natural()(model, X, Y, generator=generator).total,
    )


def test_the_mean_loss_of_a_linear_model():
    """Logits (0, ⟨w, x⟩), label 0: E softplus(z + s n), s = sigma ‖w‖, by quadrature (Gauss and Hermite)."""
    w = torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
    x = X.double().repeat(400, 1, 1, 1)
    got = GaussianNoise(sigma=1.0)(
        model, x, torch.zeros(len(x), dtype=torch.int64), generator=seeded(0, "mean", range(len(x)))
    ).total
    places, masses = (torch.from_numpy(part) for part in _hermite(40))
    z = X.double().flatten(1) @ w
    expected = (nn.functional.softplus(z[:, None] + w.norm() * places) * masses).sum(1).mean()
    assert got.item() == pytest.approx(expected.item(), rel=0.02)
    assert expected > 1.1 * nn.functional.softplus(z).mean()  # and it is not the loss without noise


def _hermite(points: int) -> tuple[np.ndarray, np.ndarray]:
    places, masses = np.polynomial.hermite_e.hermegauss(points)
    return places, masses / masses.sum()


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_a_bad_sigma_is_refused(sigma: float):
    with pytest.raises(BadInput, match="'sigma'") as caught:
        GaussianNoise(sigma=sigma)
    assert "\n" not in str(caught.value)
