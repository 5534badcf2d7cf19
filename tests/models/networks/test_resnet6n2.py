"""ResNet56 and ResNet8 with a step size: derived a second time in float64, counted, and what a small step leaves."""

import pytest
import torch
from torch import Tensor
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.inspecting import weights_hash
from verigrad.models.networks.resnet6n2 import ResNet6n2, ResNet8, ResNet56
from verigrad.training.trainer import initialised


def with_step(model: torch.nn.Module, step: float) -> torch.nn.Module:
    """h to the full precision of float64."""
    for name, buffer in model.named_buffers():
        if name.endswith(".h"):
            buffer.fill_(step)
    return model


def padded(x: Tensor, channels: int, stride: int) -> Tensor:
    """Every stride-th pixel, in a tensor of zeros with more channels."""
    x = x[:, :, ::stride, ::stride]
    return torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], 1)


def written_out(tape: Tape, x: Tensor, blocks: int, channels: int, step: float, shortcut: str) -> Tensor:
    y = tape.norm(tape.conv(x)).relu()
    for stage in range(3):
        for index in range(blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            f = tape.norm(tape.conv(tape.norm(tape.conv(y, stride)).relu()))
            assert float(tape.take()) == step
            if stride == 2:
                y = tape.norm(tape.conv(y, 2)) if shortcut == "B" else padded(y, channels * 2**stage, 2)
            y = (y + step * f).relu()
    return tape.linear(y.flatten(2).mean(2))


@pytest.mark.parametrize(("blocks", "step", "shortcut"), [(1, 1.0, "A"), (2, 0.1, "A"), (2, 0.3, "B"), (9, 0.5, "A")])
def test_the_net_written_out(blocks: int, step: float, shortcut):
    model = with_step(double(ResNet6n2(blocks, step, 5, 2, 4, shortcut)), step)
    x, tape = images(3, 2, 9, 12), Tape(model)
    close(model(x), written_out(tape, x, blocks, 4, step, shortcut))
    tape.ends()


@pytest.mark.parametrize(("make", "blocks"), [(ResNet56, 9), (ResNet8, 1)])
def test_the_named_ones_have_their_depth(make, blocks: int):
    named, plain = make(0.1, 5, 2, 4, "B"), ResNet6n2(blocks, 0.1, 5, 2, 4, "B")
    assert {name: part.shape for name, part in named.state_dict().items()} == {
        name: part.shape for name, part in plain.state_dict().items()
    }
    layers = sum(isinstance(part, torch.nn.Conv2d | torch.nn.Linear) for part in make().modules())
    assert layers == 6 * blocks + 2


@pytest.mark.parametrize(("blocks", "millions"), [(3, 0.27), (5, 0.46), (7, 0.66), (9, 0.85), (18, 1.7)])
def test_the_sizes_are_those_of_he_et_al_table_6(blocks: int, millions: float):
    digits = 1 if blocks == 18 else 2
    assert round(parameters(lambda: ResNet6n2(blocks)) / 1e6, digits) == millions


def test_sizes_kernel_by_kernel():
    kernels = 9 * (3 * 16 + 18 * 16**2 + (16 * 32 + 17 * 32**2) + (32 * 64 + 17 * 64**2))
    norms = 2 * (16 + 18 * (16 + 32 + 64))
    assert parameters(ResNet56) == kernels + norms + 64 * 10 + 10
    shortcuts = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert parameters(lambda: ResNet56(shortcut="B")) == kernels + norms + 64 * 10 + 10 + shortcuts
    assert parameters(ResNet56) - parameters(ResNet8) == 8 * 2 * (9 * (16**2 + 32**2 + 64**2) + 2 * (16 + 32 + 64))


def test_nothing_but_the_stem_reaches_the_logits_at_the_smallest_step():
    model = with_step(double(ResNet56(1e-10, channels=4)), 1e-10)
    x, tape = images(3, 3, 8, 8), Tape(model)
    stem = tape.norm(tape.conv(x)).relu()[:, :, ::4, ::4].mean((2, 3))
    linear = model.classifier
    assert isinstance(linear, torch.nn.Linear)
    close(model(x), stem @ linear.weight[:, :4].t() + linear.bias, 1e-7)


def test_the_step_changes_the_hash():
    assert len({weights_hash(initialised(lambda: ResNet8(step, channels=2), 0)) for step in (1.0, 0.1)}) == 2  # noqa: B023


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_every_image_is_taken(shortcut):
    holds_for_any_network(lambda channels: double(ResNet8(0.5, in_channels=channels, channels=2, shortcut=shortcut)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet56(0.0), "'h' of ResNet56 must be a finite number above 0. Got 0.0"),
        (lambda: ResNet8(float("inf")), "'h' of ResNet8 .* Got inf"),
        (lambda: ResNet8(shortcut="C"), "must be 'A' or 'B'. Got 'C'"),
        (lambda: ResNet6n2(0), "'blocks' of ResNet2 must be at least 1. Got 0"),
        (lambda: ResNet8(channels=0), "'channels' of ResNet8 must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
