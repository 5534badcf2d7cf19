"""The pre-activation network: derived a second time on bare tensors in float64, and counted."""

import math

import pytest
from torch import Tensor, nn
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.networks.preact_resnet import PreActResNet18
from verigrad.training.trainer import initialised


def block(tape: Tape, x: Tensor, stride: int, channels: int) -> Tensor:
    before = tape.norm(x).relu()
    y = tape.conv(tape.norm(tape.conv(before, stride)).relu())
    return y + (x if x.shape[1] == channels else tape.conv(before, stride))


@pytest.mark.parametrize("final_norm", [False, True])
def test_the_net_written_out(final_norm: bool):
    model, x = double(PreActResNet18(4, 5, 2, final_norm=final_norm)), images(3, 2, 9, 12)
    tape = Tape(model)
    y = tape.conv(x)
    for stage in range(4):
        for index in range(2):
            y = block(tape, y, 2 if stage > 0 and index == 0 else 1, 4 * 2**stage)
    y = tape.norm(y).relu() if final_norm else y
    close(model(x), tape.linear(y.flatten(2).mean(2)))
    tape.ends()


def test_the_sizes_are_the_known_ones_without_and_with_the_last_norm():
    assert parameters(PreActResNet18) == 11_171_146  # pytorch-cifar's and YOPO's
    assert parameters(lambda: PreActResNet18(final_norm=True)) == 11_171_146 + 2 * 512


@pytest.mark.parametrize("final_norm", [False, True])
def test_every_image_is_taken(final_norm: bool):
    holds_for_any_network(lambda channels: double(PreActResNet18(2, in_channels=channels, final_norm=final_norm)))


def test_weights_start_as_torch_starts_them():
    for part in initialised(lambda: PreActResNet18(16), 0).modules():
        if isinstance(part, nn.Conv2d):
            bound = 1 / math.sqrt(part.weight[0].numel())
            assert 0.95 * bound < float(part.weight.detach().abs().max()) <= bound


def test_what_cannot_be_built_is_told():
    with pytest.raises(BadInput, match="'channels' of PreActResNet18 must be at least 1"):
        PreActResNet18(-2)
