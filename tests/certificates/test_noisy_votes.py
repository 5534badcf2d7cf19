"""Votes under noise: the same whatever the batch, as often as the noise's law says, and never a NaN's."""

import pytest
import torch
from controls import Coupled
from estimate_models import SHAPE, images
from scipy.stats import kstest, norm
from torch import nn

from verigrad.certificates.noisy_votes import NoisyVotes, check_noise
from verigrad.core.errors import BadInput


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above ½, with a margin; NaN where the first pixel is above `nan`."""

    def __init__(self, nan: float = torch.inf) -> None:
        super().__init__()
        self.nan = nan
        self.sizes: list[int] = []

    def forward(self, x):
        self.sizes.append(len(x))
        lead = x.flatten(1).mean(1) - 0.5
        logits = torch.stack([-lead, lead], dim=1)
        return torch.where(x.flatten(1)[:, :1] > self.nan, torch.nan, logits)


def votes(model, x, *, batch=60, sigma=0.5, seed=0, dtype="model"):
    return NoisyVotes(model, x, sigma=sigma, seeds=[seed + i for i in range(len(x))], batch=batch, dtype=dtype)


@pytest.mark.parametrize("batch", [1, 7, 20, 41, 60, 1000])
def test_no_batch_size_changes_a_count(batch):
    x = images(5)
    own = votes(Threshold(), x).more(range(5), 100)
    assert torch.equal(votes(Threshold(), x, batch=batch).more(range(5), 100), own)
    assert (own.sum(1) == 100).all()
    assert (own[:, :2] > 0).all()


def test_an_image_gets_the_same_noise_in_any_company_and_in_any_rounds():
    x = images(4)
    together = votes(Threshold(), x)
    first, second = together.more([0, 1, 2, 3], 40), together.more([1, 3], 60)
    for i in (1, 3):
        alone = NoisyVotes(Threshold(), x[i : i + 1], sigma=0.5, seeds=[i], batch=60, dtype="model").more([0], 100)
        assert torch.equal(alone[0], first[i] + second[[1, 3].index(i)])


def test_draws_that_fill_no_block_are_counted_exactly():
    x = images(3)
    model = Threshold()
    found = votes(model, x, batch=50).more(range(3), 33)
    assert (found.sum(1) == 33).all()
    assert sum(model.sizes) == 3 * 40
    assert max(model.sizes) == 40


def test_the_noise_is_normal_with_the_sigma_of_pixels():
    """Each pixel that the model sees, less the image, against the law."""
    seen = []

    class Look(Threshold):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    x = images(1)
    votes(Look(), x, sigma=0.3).more([0], 400)
    noise = (torch.cat(seen) - x).flatten() / 0.3
    assert len(noise) == 4800
    assert kstest(noise.numpy(), norm.cdf).pvalue > 0.01
    # Noise leaves the box, and nothing is clipped.
    assert (torch.cat(seen) < 0).any()


def test_logits_that_are_not_finite_vote_for_no_class():
    x = torch.full((1, *SHAPE), 0.6, dtype=torch.float64)
    found = votes(Threshold(nan=0.6), x).more([0], 2000)[0]
    assert found.sum() == 2000
    assert abs(int(found[2]) - 1000) < 5 * 500**0.5


def test_a_batch_coupled_model_sees_images_one_by_one():
    model = Threshold()
    found = votes(Coupled(model), images(2)).more(range(2), 20)
    assert set(model.sizes) == {1}
    assert found.sum() == 40


def test_bf16_is_what_the_model_computes_under_autocast():
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(12, 3)

        def forward(self, x):
            out = self.layer(x.flatten(1))
            seen.append(out.dtype)
            return out

    x = images(2).float()
    votes(Net(), x, dtype="bf16").more(range(2), 20)
    votes(Net(), x).more(range(2), 20)
    assert seen[0] is torch.bfloat16
    assert seen[-1] is torch.float32


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"sigma": 0.0}, "positive number, in pixels"),
        ({"sigma": float("inf")}, "'sigma' of it"),
        ({"alpha": 1.0}, "'alpha' of it must lie"),
        ({"dtype": "fp8"}, "one of model, bf16"),
        ({"n": 0}, "'n' of it"),
    ],
)
def test_settings_that_mean_nothing(setting, told):
    with pytest.raises(BadInput, match=told):
        check_noise("it", **{"sigma": 0.25, "alpha": 0.001, "dtype": "model", "n": 1} | setting)
