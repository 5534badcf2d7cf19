"""Scores against hand formulas, float64 and torch's own loss."""

import pytest
import torch
import torch.nn.functional as F

from verigrad.core.errors import BadInput
from verigrad.core.scores import (
    SCORES,
    TARGETED_SCORES,
    cross_entropy,
    cross_entropy_targeted,
    dlr,
    dlr_targeted,
    margin,
    margin_targeted,
)

Z = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 3.0, -2.0], [-5.0, -5.0, -4.0, -60.0]])
Y = torch.tensor([0, 0, 3])


def random_logits(scale: float, dtype: torch.dtype = torch.float32):
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(50, 10, generator=draw, dtype=torch.float64) * scale
    return z.to(dtype), torch.randint(10, (50,), generator=draw)


def test_margin_by_hand():
    assert margin(Z, Y).tolist() == [-1.5, 3.0, 56.0]
    assert margin(Z - 50, Y).tolist() == [-1.5, 3.0, 56.0]  # negative logits change nothing


def test_dlr_by_hand():
    expected = [-1.5 / (2.0 - 0.0), 3.0 / (3.0 - 0.0), 56.0 / (-4.0 + 5.0)]
    assert dlr(Z, Y).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_cross_entropy(scale: float):
    z, y = random_logits(scale)
    assert torch.equal(cross_entropy(z, y), F.cross_entropy(z, y, reduction="none"))
    by_hand = torch.logsumexp(z.double(), 1) - z.double().gather(1, y[:, None]).squeeze(1)
    assert torch.allclose(cross_entropy(z, y).double(), by_hand, rtol=1e-5, atol=1e-6 * max(scale, 1))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_float32_agrees_with_float64(name: str, scale: float):
    (z32, y), (z64, _) = random_logits(scale), random_logits(scale, torch.float64)
    assert torch.allclose(SCORES[name](z32, y).double(), SCORES[name](z64, y), rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", SCORES)
def test_gradient_agrees_with_finite_differences(name: str):
    z, y = random_logits(1.0, torch.float64)
    assert torch.autograd.gradcheck(lambda t: SCORES[name](t, y), z.requires_grad_(True))


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_positive_exactly_on_an_error(name: str):
    z, y = random_logits(1.0)
    assert torch.equal(SCORES[name](z, y) > 0, z.argmax(1) != y)


def test_only_cross_entropy_saturates():
    z = (Z * 1000).requires_grad_(True)
    y = Z.argmax(1)
    gradients = {name: torch.autograd.grad(score(z, y).sum(), z)[0] for name, score in SCORES.items()}
    assert (gradients["cross_entropy"][0] == 0).all()
    assert (gradients["margin"][0] != 0).any()
    assert (gradients["dlr"][0] != 0).any()


@pytest.mark.parametrize("name", SCORES)
def test_samples_do_not_mix_and_nan_stays_visible(name: str):
    z, y = random_logits(1.0)
    assert torch.allclose(SCORES[name](z[3:4], y[3:4]), SCORES[name](z, y)[3:4])
    z[7, 2] = torch.nan
    assert torch.isnan(SCORES[name](z, y)[7])
    assert torch.isfinite(SCORES[name](z, y)).sum() == 49


def test_dlr_needs_three_classes():
    with pytest.raises(BadInput, match="at least 3 classes"):
        dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert margin(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).tolist() == [1.0]


def test_targeted_scores_by_hand():
    target = torch.tensor([2, 1, 2])
    assert margin_targeted(Z, Y, target).tolist() == [-1.5, 3.0, 56.0]
    assert margin_targeted(Z, Y, torch.tensor([3, 3, 0])).tolist() == [-2.0, -2.0, 55.0]
    expected = [-1.5 / (2.0 + 0.5), 3.0 / (3.0 + 1.0), 56.0 / (-4.0 + 32.5)]
    assert dlr_targeted(Z, Y, target).tolist() == pytest.approx(expected)
    at_target = Z.double().softmax(1).gather(1, target[:, None]).squeeze(1).log()
    assert cross_entropy_targeted(Z, Y, target).tolist() == pytest.approx(at_target.tolist())


@pytest.mark.parametrize("name", TARGETED_SCORES)
def test_targeted_gradients_agree_with_finite_differences(name: str):
    z, y = random_logits(1.0, torch.float64)
    target = (y + 1 + torch.arange(len(y)) % 9) % 10
    assert torch.autograd.gradcheck(lambda t: TARGETED_SCORES[name](t, y, target), z.requires_grad_(True))


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_the_best_target_gives_the_sign_of_the_untargeted_score(name: str):
    z, y = random_logits(1.0)
    values = torch.stack([TARGETED_SCORES[name](z, y, (y + k) % 10) for k in range(1, 10)])
    assert torch.equal(values.amax(0) > 0, z.argmax(1) != y)


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_dlr_alone_ignores_the_size_of_the_logits(name: str):
    z, y = random_logits(1.0, torch.float64)
    target = (y + 1) % 10
    same = torch.allclose(TARGETED_SCORES[name](z, y, target), TARGETED_SCORES[name](1000 * z + 7, y, target))
    assert same == (name == "dlr")


def test_targeted_dlr_needs_four_classes():
    with pytest.raises(BadInput, match="at least 4 classes"):
        dlr_targeted(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
