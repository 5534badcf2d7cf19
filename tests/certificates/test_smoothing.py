"""Randomised smoothing of a linear classifier, whose radius is its distance to the plane, and of small nets."""

from __future__ import annotations

import pytest
import torch
from controls import Coupled
from estimate_models import PIXELS, SHAPE, around_the_middle, images, small_net
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from verigrad.certificates.base import Honesty
from verigrad.certificates.binomial import clopper_pearson_lower
from verigrad.certificates.smoothed_prediction import predict_smoothed
from verigrad.certificates.smoothing import Smoothing
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded

SIGMA = 0.25


class Plane(nn.Module):
    """Class 1 where ⟨w, x⟩ > t, |w| = 1, of three classes of which the last never wins."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        w = torch.randn(PIXELS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.w, self.scale = w / w.norm(), scale

    def distance(self, x: Tensor) -> Tensor:
        """(N,) signed distance to the plane, positive on the side of class 1: Φ(it / σ) of the votes go to class 1."""
        return x.flatten(1) @ self.w.to(x.dtype) - float(self.w.sum() / 2)

    def forward(self, x: Tensor) -> Tensor:
        lead = self.scale * self.distance(x)
        return torch.stack([-lead, lead, torch.full_like(lead, -1e9)], dim=1)


def run(certificate: Smoothing, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0):
    return certificate(model, x, y, generator=seeded(seed, "s", range(len(x))))


def test_on_a_plane_the_radius_is_the_distance_within_its_confidence():
    """σ Φ⁻¹ of an estimate of Φ(d / σ): below d in all but alpha of the cases, and by no more than its error allows."""
    model, x, n, alpha = Plane(), around_the_middle(20, width=0.8), 10_000, 0.001
    signed = model.distance(x)
    y = (signed > 0).long()
    found = run(Smoothing(sigma=SIGMA, n=n, alpha=alpha), model, x, y)
    exact = signed.abs()
    sure = ~found.abstained
    assert (found.radius <= exact).all()
    assert sure[exact > 0.04].all()
    assert sure.sum() >= 10
    assert torch.equal(found.predicted[sure], y[sure])
    # What the bound gives if the count is five standard errors below its mean.
    share = torch.from_numpy(ndtr(exact.numpy() / SIGMA))
    low = (n * share - 5 * (n * share * (1 - share)).sqrt() - 1).clamp(min=0).numpy()
    least = SIGMA * ndtri(clopper_pearson_lower(low, n, alpha))
    assert (found.radius[sure].numpy() >= least[sure.numpy()]).all()


@pytest.mark.parametrize("test", ["curtailed", "staged", "betting"])
def test_on_a_plane_given_radii_are_decided_as_the_distance_says(test):
    model, x = Plane(), around_the_middle(30, width=0.9)
    exact = model.distance(x).abs()
    y = (model.distance(x) > 0).long()
    radii = (0.0, 0.1, 0.2)
    found = run(Smoothing(sigma=SIGMA, radii=radii, test=test, n=5000), model, x, y)
    assert (found.radius <= exact).all()
    for radius in radii:
        clear = (exact - radius).abs() > 0.05
        assert torch.equal(((found.radius > 0) & (found.radius >= radius))[clear], (exact > radius)[clear])
    assert found.forwards.double().mean() < (5100 if test == "curtailed" else 3000)


def test_curtailed_gives_what_fixed_gives():
    """Radius, class and abstention alike, on images near the boundary, with a third of the labels wrong."""
    model, x = Plane(), around_the_middle(60, width=0.25)
    y = (model.distance(x) > 0).long()
    y[::3] = 1 - y[::3]
    fixed = run(Smoothing(sigma=SIGMA, test="fixed", n=1000), model, x, y)
    curtailed = run(Smoothing(sigma=SIGMA, n=1000), model, x, y)
    assert torch.equal(fixed.radius, curtailed.radius)
    assert torch.equal(fixed.predicted, curtailed.predicted)
    assert fixed.abstained.any()
    assert not fixed.abstained.all()
    assert (curtailed.forwards <= fixed.forwards).all()
    assert curtailed.forwards[fixed.abstained].double().mean() < fixed.forwards[0]


@pytest.mark.parametrize("radii", [(0.0,), (0.05,), (0.0, 0.05, 0.1)])
def test_at_given_radii_curtailed_decides_as_fixed(radii):
    model, x = Plane(), around_the_middle(60, width=0.25)
    y = (model.distance(x) > 0).long()
    fixed = run(Smoothing(sigma=SIGMA, test="fixed", n=1000), model, x, y)
    curtailed = run(Smoothing(sigma=SIGMA, radii=radii, n=1000), model, x, y)
    for radius in radii:
        outcome = [(one.radius > 0) & (one.radius >= radius) for one in (fixed, curtailed)]
        assert torch.equal(*outcome)
        assert outcome[0].any()
        assert not outcome[0].all()
    assert curtailed.forwards.sum() < fixed.forwards.sum()


@pytest.mark.parametrize("batch", [7, 1000])
def test_no_batch_size_changes_anything(batch):
    model, x = small_net(), images(12)
    y = torch.zeros(12, dtype=torch.int64)
    for setting in ({"test": "curtailed"}, {"test": "betting", "radii": (0.0, 0.1)}):
        own = run(Smoothing(sigma=SIGMA, n=600, **setting), model, x, y)
        other = run(Smoothing(sigma=SIGMA, n=600, batch=batch, **setting), model, x, y)
        assert torch.equal(own.radius, other.radius)
        assert torch.equal(own.predicted, other.predicted)
        assert torch.equal(own.forwards, other.forwards)


@pytest.mark.parametrize("test", ["curtailed", "staged", "betting"])
def test_radii_are_wrong_at_most_at_the_rate_alpha(test):
    """Coverage by simulation, alpha = 0.1: 1,000 runs on one image, at the radius that is its exact distance.

    The image lies at the distance of the largest radius asked for, so that any certification of it is an error.
    """
    model, alpha, runs = Plane(), 0.1, 1000
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    x = (x + (0.15 * model.w).reshape(1, *SHAPE)).expand(runs, -1, -1, -1)
    distance = float(model.distance(x[:1]))
    assert distance == pytest.approx(0.15)
    certificate = Smoothing(sigma=SIGMA, radii=(0.0, distance), test=test, n=200, n0=20, alpha=alpha)
    found = run(certificate, model, x, torch.ones(runs, dtype=torch.int64))
    wrong = (found.radius > distance).double().mean()
    assert wrong <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5
    # It is no bystander: at radius 0 it certifies nearly all.
    assert (found.radius > 0).double().mean() > 0.9


def test_the_plain_radius_is_wrong_at_most_at_the_rate_alpha():
    model, alpha, runs = Plane(), 0.1, 1000
    x = (0.5 + (0.15 * model.w).reshape(1, *SHAPE)).expand(runs, -1, -1, -1)
    found = run(Smoothing(sigma=SIGMA, n=200, n0=20, alpha=alpha), model, x, torch.ones(runs, dtype=torch.int64))
    wrong = (found.radius > 0.15).double().mean()
    assert 0.02 < wrong <= alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5


def test_scaling_the_logits_changes_nothing():
    """The vote counts, not the margin."""
    x = around_the_middle(10)
    y = (Plane().distance(x) > 0).long()
    certificate = Smoothing(sigma=SIGMA, n=500)
    assert torch.equal(run(certificate, Plane(), x, y).radius, run(certificate, Plane(1e-3), x, y).radius)


def test_a_model_without_finite_logits_is_abstained_from():
    class Broken(Plane):
        def forward(self, x):
            return super().forward(x) * torch.nan

    x = images(3)
    found = run(Smoothing(sigma=SIGMA, n=200), Broken(), x, torch.zeros(3, dtype=torch.int64))
    assert found.abstained.all()
    assert (found.radius == 0).all()
    assert (found.predicted == -1).all()


def test_images_one_by_one_where_predictions_depend_on_batch_mates():
    x = around_the_middle(3)
    y = (Plane().distance(x) > 0).long()
    certificate = Smoothing(sigma=SIGMA, n=200)
    alone = [run(certificate, Coupled(Plane()), x[i : i + 1], y[i : i + 1]) for i in range(1)]
    together = run(certificate, Coupled(Plane()), x, y)
    assert torch.equal(together.radius[:1], alone[0].radius)


def test_bf16_says_that_it_certifies_another_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3))
    x, y = images(2).float(), torch.zeros(2, dtype=torch.int64)
    found = run(Smoothing(sigma=SIGMA, n=100, dtype="bf16"), model, x, y)
    assert Smoothing(sigma=SIGMA, dtype="bf16").subject == "smoothed model in bfloat16"
    assert any("bfloat16" in line for line in found.assumptions)
    assert found.honesty is Honesty.PROBABILISTIC
    assert found.alpha == 0.001


def test_the_largest_radius_is_that_of_all_votes():
    assert Smoothing(sigma=1.0, n=100_000).largest == pytest.approx(float(ndtri(0.001 ** (1 / 100_000))), rel=1e-9)


def test_it_tells_how_many_images_are_settled():
    model, x = Plane(), around_the_middle(20)
    told: list[int] = []
    certificate = Smoothing(sigma=SIGMA, radii=(0.0,), test="betting", n=2000)
    certificate.watched(model, x, (model.distance(x) > 0).long(), generator=seeded(0, "s", range(20)), told=told.append)
    assert told == sorted(told)
    assert 0 < told[0] <= 20
    assert len(told) > 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sigma": -1.0}, "'sigma' of smoothing"),
        ({"alpha": 0.0}, "'alpha' of smoothing"),
        ({"test": "sprt"}, "one of fixed, curtailed, staged, betting"),
        ({"radii": (0.25, 0.0)}, "rising numbers from 0"),
        ({"radii": (-0.1,)}, "rising numbers from 0"),
        ({"test": "betting"}, "Add for example radii="),
        ({"n": 9}, "can never certify any radius"),
        ({"radii": (1.0,)}, r"never certify the radius 1.0 .* 0.9529"),
        ({"n0": 0}, "'n0' of smoothing"),
        ({"dtype": "half"}, "'dtype' of smoothing"),
    ],
)
def test_settings_that_cannot_be_used(settings, told):
    with pytest.raises(BadInput, match=told):
        Smoothing(**{"sigma": SIGMA} | settings)


# Prediction


def answers(model: nn.Module, x: Tensor, **settings):
    settings = {"sigma": SIGMA, "n": 1000} | settings
    return predict_smoothed(model, x, generator=seeded(0, "p", range(len(x))), **settings)


def test_predictions_are_the_side_of_the_plane_and_near_it_none():
    model, x = Plane(), around_the_middle(60, width=0.25)
    signed = model.distance(x)
    found = answers(model, x)
    assert found.counts.shape == (60, 4)
    assert (found.counts.sum(1) == 1000).all()
    sure = ~found.abstained
    assert torch.equal(found.predicted[sure], (signed > 0).long()[sure])
    assert (found.predicted[~sure] == -1).all()
    assert sure[signed.abs() > 0.1].all()
    assert not sure[signed.abs() < 0.005].any()


def test_on_the_plane_it_answers_at_most_at_the_rate_alpha():
    x = torch.full((1000, *SHAPE), 0.5, dtype=torch.float64)
    found = answers(Plane(), x, alpha=0.1, n=200)
    assert 0.05 < (~found.abstained).double().mean() <= 0.1 + 3 * 0.0095


def test_no_class_wins_where_logits_are_not_finite():
    class Broken(Plane):
        def forward(self, x):
            return super().forward(x) * torch.nan

    found = answers(Broken(), images(2))
    assert found.abstained.all()
    assert (found.counts[:, -1] == 1000).all()


def test_bad_settings_of_a_prediction():
    with pytest.raises(BadInput, match="'alpha' of predict_smoothed"):
        answers(Plane(), images(1), alpha=2.0)
