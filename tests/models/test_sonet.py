"""SONet has the released sizes, takes digits, and shares its steps over the batch."""

import pytest
import torch

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.models.sonet import SONet
from verigrad.models.twin import twin
from verigrad.solvers import TORCHDIFFEQ_0_0_1, PerSample
from verigrad.training.trainer import initialised


def digits_sonet(channels: int = 8) -> SONet:
    model = initialised(lambda: SONet(channels, (1, 1, 1, 1), in_channels=1), 0)
    assert isinstance(model, SONet)
    return model.eval()


@pytest.mark.parametrize(
    ("channels", "blocks", "millions"),
    [(64, (2, 2, 2, 2), 5.94), (32, (2, 2, 2, 2), 1.49), (64, (1, 1, 1, 1), 2.80), (32, (1, 1, 1, 1), 0.70)],
)
def test_the_sizes_are_the_released_ones(channels: int, blocks: tuple[int, ...], millions: float):
    parameters = sum(weight.numel() for weight in SONet(channels, blocks).parameters())
    assert round(parameters / 1e6, 2) == millions


def test_digits_end_at_one_pixel():
    model = digits_sonet()
    sizes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda part, inputs, output: sizes.append(tuple(output.shape)))
    with torch.no_grad():
        assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert sizes == [(2, 8, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2), (2, 64, 1, 1)]


def test_images_that_cannot_be_halved_three_times_are_told():
    with pytest.raises(BadInput, match="multiples of 8"):
        digits_sonet()(torch.rand(1, 1, 28, 28))


def test_batch_mates_change_the_logits_and_not_under_own_steps():
    model = digits_sonet().double()
    assert batch_coupled(model)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = twin(model, control=PerSample(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_0_1))
    assert not batch_coupled(alone)
    with torch.no_grad():
        joint = model(x)
        single = torch.cat([model(one[None]) for one in x])
        assert float((joint - single).abs().max()) > 1e-4
        torch.testing.assert_close(alone(x), single, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 1, 1, 0)])
def test_blocks_must_be_four(blocks: tuple[int, ...]):
    with pytest.raises(BadInput, match="four numbers of at least 1"):
        SONet(8, blocks)
