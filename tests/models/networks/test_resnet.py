"""ResNet10, 18 and 50: derived a second time on bare tensors in float64, counted, and started as their sources say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.inspecting import weights_hash
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.models.networks.resnet import ResNet10, ResNet18, ResNet50
from verigrad.training.trainer import initialised


def basic_net(tape: Tape, x: Tensor, blocks: int) -> Tensor:
    y = tape.norm(tape.conv(x)).relu()
    for stage in range(4):
        for index in range(blocks):
            y = tape.basic(y, 2 if stage > 0 and index == 0 else 1)
    return tape.linear(y.flatten(2).mean(2))


def bottleneck(tape: Tape, x: Tensor, stride: int) -> Tensor:
    y = tape.norm(tape.conv(x)).relu()
    y = tape.norm(tape.conv(y, stride)).relu()
    y = tape.norm(tape.conv(y))
    return (y + (x if y.shape == x.shape else tape.norm(tape.conv(x, stride)))).relu()


@pytest.mark.parametrize(("make", "blocks"), [(ResNet10, 1), (ResNet18, 2)])
def test_the_nets_of_basic_blocks_written_out(make, blocks: int):
    model, x = double(make(4, 5, 2)), images(3, 2, 9, 12)
    tape = Tape(model)
    close(model(x), basic_net(tape, x, blocks))
    tape.ends()


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_the_net_of_bottlenecks_written_out(stem):
    model, x = double(ResNet50(stem, 5, 2, 2)), images(3, 2, 18, 23)
    tape = Tape(model)
    if stem == "cifar":
        y = tape.norm(tape.conv(x)).relu()
    else:
        y = F.max_pool2d(F.pad(tape.norm(tape.conv(x, 2)).relu(), (1, 1, 1, 1)), 3, 2)
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for index in range(blocks):
            y = bottleneck(tape, y, 2 if stage > 0 and index == 0 else 1)
    close(model(x), tape.linear(y.flatten(2).mean(2)))
    tape.ends()


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: ResNet10(64), 4_903_242),  # 4.90 million in the released SONet code
        (lambda: ResNet18(), 11_173_962),  # pytorch-cifar's ResNet18
        (lambda: ResNet18(antisymmetric=True), 11_173_962),
        (lambda: ResNet50(), 23_520_842),  # pytorch-cifar's ResNet50
    ],
)
def test_the_sizes_are_the_known_ones(make, count: int):
    assert parameters(make) == count


def test_the_imagenet_net_has_torchvision_s_size():
    assert parameters(lambda: ResNet50("imagenet", 1000)) == 25_557_032


def test_grey_images_and_fewer_channels_cost_less():
    assert parameters(ResNet50) - parameters(lambda: ResNet50(in_channels=1)) == 2 * 64 * 9
    # stem, four blocks of two convolutions, three projections, norms, linear; all at C = 32
    kernels = 27 * 32 + 9 * (2 * 32**2 + sum(a * 2 * a + 4 * a * a for a in (32, 64, 128)))
    kernels += sum(2 * a * a for a in (32, 64, 128))
    norms = 2 * (32 + 2 * 32 + 3 * (64 + 128 + 256))
    assert parameters(lambda: ResNet10(32)) == kernels + norms + 10 * 256 + 10


@pytest.mark.parametrize("make", [ResNet10, ResNet18])
def test_basic_nets_take_every_image(make):
    holds_for_any_network(lambda channels: double(make(2, in_channels=channels)))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_bottleneck_nets_take_every_image(stem):
    holds_for_any_network(lambda channels: double(ResNet50(stem, in_channels=channels, channels=4)))


def test_the_antisymmetric_net_is_the_plain_one_with_other_kernels():
    gamma = 0.25
    model = double(ResNet18(4, 5, 2, antisymmetric=True, gamma=gamma))
    square = {name for name, part in model.named_modules() if isinstance(part, AntisymmetricConv2d)}
    # Two in each block, less the first ones of stages two to four.
    assert len(square) == 2 * 8 - 3
    plain, weights = ResNet18(4, 5, 2).double().eval(), dict(model.state_dict())
    for name in square:
        weights.pop(f"{name}.gamma")
        model.get_buffer(f"{name}.gamma").fill_(gamma)
        theta = weights[f"{name}.weight"]
        kernel = theta.clone()
        for i in range(len(theta)):
            for j in range(len(theta)):
                kernel[i, j] -= torch.rot90(theta[j, i], 2)
            kernel[i, i, 1, 1] -= gamma
        weights[f"{name}.weight"] = kernel
    plain.load_state_dict(weights)
    x = images(3, 2, 9, 12)
    close(model(x), plain(x))


def test_gamma_changes_the_hash_and_the_form_the_table_of_weights():
    def made(**words) -> nn.Module:
        return initialised(lambda: ResNet18(2, **words), 0)

    plain, small, large = made(), made(antisymmetric=True), made(antisymmetric=True, gamma=0.1)
    assert len({weights_hash(model) for model in (plain, small, large)}) == 3
    holds_for_any_network(lambda channels: double(ResNet18(2, in_channels=channels, antisymmetric=True)))


def test_weights_start_as_the_sources_say():
    """N(0, 2 / (9 · out)) with mean 0, or uniform in ±1/√(9 · in): the deviations and the extremes tell them apart."""
    kernels = [
        part.weight.detach() for part in initialised(lambda: ResNet18(16), 0).modules() if isinstance(part, nn.Conv2d)
    ]
    last = next(kernel for kernel in reversed(kernels) if kernel.shape[-1] == 3)
    assert abs(float(last.std()) / math.sqrt(2 / (9 * 128)) - 1) < 0.02
    assert float(last.abs().max()) > 3.5 * float(last.std())
    stem = kernels[0]
    assert abs(float(stem.std()) / math.sqrt(2 / (9 * 16)) - 1) < 0.15
    kernels = [
        part.weight.detach() for part in initialised(lambda: ResNet10(16), 0).modules() if isinstance(part, nn.Conv2d)
    ]
    for kernel in kernels:
        bound = 1 / math.sqrt(kernel[0].numel())
        assert 0.95 * bound < float(kernel.abs().max()) <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet10(0), "'channels' of ResNet10 must be at least 1. Got 0"),
        (lambda: ResNet18(classes=0), "'classes' of ResNet18 must be at least 1"),
        (lambda: ResNet18(2, antisymmetric=True, gamma=-1.0), "Got -1.0"),
        (lambda: ResNet50("mnist"), "must be 'cifar' or 'imagenet'. Got 'mnist'"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
