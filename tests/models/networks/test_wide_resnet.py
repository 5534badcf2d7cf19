"""Wide residual networks in both variants: derived a second time on bare tensors in float64, counted, and started."""

import math

import pytest
import torch
from torch import Tensor, nn
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.networks.wide_resnet import WideResNet
from verigrad.training.trainer import initialised


def standard_block(tape: Tape, x: Tensor, stride: int, channels: int) -> Tensor:
    before = tape.norm(x).relu()
    y = tape.conv(tape.norm(tape.conv(before, stride)).relu())
    return y + (x if x.shape[1] == channels else tape.conv(before, stride))


def released_block(tape: Tape, x: Tensor, stride: int, channels: int) -> Tensor:
    y = tape.conv(tape.norm(x).relu(), bias=True)
    y = tape.conv(tape.norm(y).relu(), stride, bias=True)
    return y + (x if x.shape[1] == channels else tape.conv(x, stride, bias=True))


@pytest.mark.parametrize(("depth", "widen"), [(10, 2), (16, 1)])
@pytest.mark.parametrize("variant", ["standard", "released"])
def test_the_net_written_out(variant, depth: int, widen: int):
    model, x = double(WideResNet(depth, widen, 5, 2, variant=variant)), images(2, 2, 5, 7)
    tape = Tape(model)
    block = standard_block if variant == "standard" else released_block
    y = tape.conv(x, bias=variant == "released")
    for stage in range(3):
        for index in range((depth - 4) // 6):
            y = block(tape, y, 2 if stage > 0 and index == 0 else 1, 16 * widen * 2**stage)
    close(model(x), tape.linear(tape.norm(y).relu().flatten(2).mean(2)))
    tape.ends()


@pytest.mark.parametrize(
    ("depth", "widen", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (16, 10, 17.1), (28, 10, 36.5)],
)
def test_the_sizes_are_those_of_zagoruyko_and_komodakis_table_4(depth: int, widen: int, millions: float):
    assert abs(parameters(lambda: WideResNet(depth, widen)) / 1e6 - millions) <= 0.06


def test_the_net_of_trades_has_its_size():
    assert round(parameters(WideResNet) / 1e6, 2) == 46.16


def test_the_released_one_has_a_bias_for_every_output_of_a_convolution():
    # the stem; ten convolutions in each stage, and its shortcut
    biases = 16 + 11 * (160 + 320 + 640)
    assert parameters(lambda: WideResNet(variant="released")) - parameters(WideResNet) == biases


def test_the_last_norm_of_the_released_one_hardly_remembers():
    for variant, momentum in (("standard", 0.1), ("released", 0.9)):
        norms = [part for part in WideResNet(10, 1, variant=variant).modules() if isinstance(part, nn.BatchNorm2d)]
        assert norms[-1].momentum == momentum
        assert all(norm.momentum == 0.1 for norm in norms[:-1])


@pytest.mark.parametrize("variant", ["standard", "released"])
def test_weights_start_by_he_with_fan_out(variant):
    model = initialised(lambda: WideResNet(10, 2, variant=variant), 0)
    kernels = [part.weight.detach() for part in model.modules() if isinstance(part, nn.Conv2d)]
    kernels = [kernel for kernel in kernels if kernel.shape[-1] == 3]
    for kernel in kernels[1:]:
        assert abs(float(kernel.std()) / math.sqrt(2 / (9 * len(kernel))) - 1) < 0.05
        assert float(kernel.abs().max()) > 3 * float(kernel.std())
    linear = model.get_submodule("classifier")
    assert isinstance(linear, nn.Linear)
    assert not torch.any(linear.bias)


@pytest.mark.parametrize("variant", ["standard", "released"])
def test_every_image_is_taken(variant):
    holds_for_any_network(lambda channels: double(WideResNet(10, 1, in_channels=channels, variant=variant)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WideResNet(32), "must be 6n \\+ 4 with n from 1 up, e.g. 28 or 34. Got 32"),
        (lambda: WideResNet(4), "Got 4"),
        (lambda: WideResNet(10, 0), "'widen' of a wide ResNet must be at least 1. Got 0"),
        (lambda: WideResNet(10, 1, variant="mine"), "must be 'released' or 'standard'. Got 'mine'"),
        (lambda: WideResNet(10, 1, in_channels=0), "'in_channels' of WideResNet"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
