"""The small net and the wrappers."""

import pytest
import torch
from torch import Tensor
from written_out import close, double, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.masks import QuantisedInput, ScaledLogits
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.normalised import Normalised
from verigrad.training.trainer import initialised

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (2, 5)])
def test_the_small_net_takes_any_image(channels: int, size: int):
    model = SmallConvNet(channels)
    first, second, hidden = 16 * (9 * channels + 1), 32 * (9 * 16 + 1), 64 * (512 + 1)
    assert parameters(lambda: SmallConvNet(channels)) == first + second + hidden + 10 * 65
    assert model(torch.rand(2, channels, size, size)).shape == (2, 10)


def test_the_small_net_written_out():
    """Convolutions as sums of shifted images, pooling by a matrix of means."""
    assert parameters(SmallConvNet) == 38_282
    model, x = double(SmallConvNet(2, 5, 4)), images(3, 2, 9, 12)
    w1, b1, w2, b2, w3, b3, w4, b4 = model.state_dict().values()

    def conv(y: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        height, width = y.shape[-2:]
        wide = torch.zeros(*y.shape[:2], height + 2, width + 2, dtype=y.dtype)
        wide[:, :, 1:-1, 1:-1] = y
        moved = {(i, j): wide[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)}
        out = sum(torch.einsum("bchw,oc->bohw", part, weight[:, :, i, j]) for (i, j), part in moved.items())
        return (out + bias.reshape(-1, 1, 1))[:, :, ::stride, ::stride].clamp(min=0)

    def means(size: int) -> Tensor:
        spans = [(i * size // 4, -(-(i + 1) * size // 4)) for i in range(4)]
        at = torch.arange(size)
        return torch.stack([((at >= low) & (at < high)).double() / (high - low) for low, high in spans])

    y = conv(conv(x, w1, b1, 1), w2, b2, 2)
    pooled = torch.einsum("ih,bchw,jw->bcij", means(y.shape[2]), y, means(y.shape[3]))
    hidden = (pooled.flatten(1) @ w3.t() + b3).clamp(min=0)
    close(model(x), hidden @ w4.t() + b4)


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
