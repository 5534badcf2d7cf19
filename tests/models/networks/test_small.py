"""The small net and the wrappers."""

import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.models.masks import QuantisedInput, ScaledLogits
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.normalised import Normalised
from verigrad.training.trainer import initialised

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (2, 5)])
def test_the_small_net_takes_any_image(channels: int, size: int):
    model = SmallConvNet(channels)
    assert 20_000 < sum(weight.numel() for weight in model.parameters()) < 60_000
    assert model(torch.rand(2, channels, size, size)).shape == (2, 10)


def test_scaled_logits_are_scaled():
    model = initialised(SmallConvNet, 0)
    torch.testing.assert_close(ScaledLogits(model, 1000.0)(X), 1000 * model(X))


def test_a_quantised_input_has_so_many_levels_and_no_gradient():
    seen = []
    spy = torch.nn.Module()
    spy.forward = lambda x: (seen.append(x), x.flatten(1))[1]
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(QuantisedInput(spy, 8)(x).sum(), x)
    assert torch.allclose(seen[0] * 7, (X * 7).round())
    assert len(seen[0].unique()) <= 8
    assert not bool(gradient.any())


def test_normalisation_is_channel_by_channel():
    x = torch.rand(2, 2, 3, 3)
    got = Normalised(torch.nn.Identity(), (0.1, 0.2), (0.5, 2.0))(x)
    torch.testing.assert_close(got[:, 0], (x[:, 0] - 0.1) / 0.5)
    torch.testing.assert_close(got[:, 1], (x[:, 1] - 0.2) / 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScaledLogits(SmallConvNet(), 0.0), "must be a positive number. Got 0.0"),
        (lambda: QuantisedInput(SmallConvNet(), 1), "at least 2. Got 1"),
        (lambda: Normalised(SmallConvNet(), (0.1,), (0.5, 0.5)), "Got 1 and 2"),
        (lambda: Normalised(SmallConvNet(), (0.1,), (0.0,)), "'std' positive"),
    ],
)
def test_bad_numbers_are_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
