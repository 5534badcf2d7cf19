"""ResNeXt-34 (2×32): derived a second time in float64, counted; its smooth ReLU and its clipped logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.errors import BadInput
from verigrad.models.networks.resnext import ResNeXt34, SmoothReLU
from verigrad.training.trainer import initialised


def smooth(x: Tensor) -> Tensor:
    """max(z³ - z⁴/2, x, 0) with z = max(x + 1/2, 0), the form of the released code."""
    z = (x + 0.5).clamp(min=0)
    return torch.maximum(z**3 - z**4 / 2, x.clamp(min=0))


def shifted(tape: Tape, x: Tensor) -> Tensor:
    y = tape.norm(x, weights=False)
    return y + tape.take().reshape(-1, *[1] * (x.dim() - 2))


def grouped(tape: Tape, x: Tensor, branches: int) -> Tensor:
    """A convolution of each branch's own channels, one branch after the other."""
    kernel = tape.take()
    pairs = zip(x.chunk(branches, 1), kernel.chunk(branches, 0), strict=True)
    return torch.cat([F.conv2d(part, own, padding=1) for part, own in pairs], 1)


@pytest.mark.parametrize(("branches", "activation", "head"), [(2, "relu", "released"), (3, "smooth", "linear")])
def test_the_net_written_out(branches: int, activation, head):
    model = double(ResNeXt34(4, branches, 5, 2, activation=activation, head=head))
    act = torch.relu if activation == "relu" else smooth
    x, tape = images(3, 2, 9, 12), Tape(model)
    y = act(shifted(tape, tape.conv(x)))
    for stage in range(3):
        if stage > 0:
            y = act(shifted(tape, tape.conv(y)))
            height, width = y.shape[2] // 2, y.shape[3] // 2
            y = y[:, :, : 2 * height, : 2 * width].unflatten(3, (width, 2)).unflatten(2, (height, 2)).mean((3, 5))
        for _ in range(5):
            f = tape.norm(grouped(tape, act(tape.norm(tape.conv(y))), branches))
            y = act(y + sum(f.chunk(branches, 1)) / branches)
    features = y.flatten(2).mean(2)
    logits = tape.linear(features) if head == "linear" else act(shifted(tape, features @ tape.take().t()))
    assert bool((logits != 0).any())
    close(model(x), logits)
    tape.ends()


def test_the_name_and_the_released_size():
    """34 layers; 3.9 million parameters, kernel by kernel and norm by norm."""
    model = ResNeXt34(4)
    assert sum(isinstance(part, nn.Conv2d | nn.Linear) for part in model.modules()) == 34
    blocks = sum(5 * (2 * 18 * c**2 + 8 * c) for c in (32, 64, 128))
    others = (27 * 32 + 32) + (32 * 64 + 64) + (64 * 128 + 128) + (128 * 10 + 10)
    assert parameters(ResNeXt34) == parameters(lambda: ResNeXt34(head="linear")) == blocks + others
    assert round((blocks + others) / 1e6, 1) == 3.9


def test_the_smooth_relu_has_two_continuous_derivatives():
    x = torch.linspace(-1.5, 1.5, 61, dtype=torch.float64)
    torch.testing.assert_close(SmoothReLU()(x), smooth(x))
    edges = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    values = []
    for point in (edges - 1e-9, edges + 1e-9):
        point = point.requires_grad_()
        first = torch.autograd.grad(SmoothReLU()(point).sum(), point, create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), point)[0] if first.requires_grad else torch.zeros(2)
        values.append(torch.stack([first.detach(), second.double()]))
    for side in values:
        torch.testing.assert_close(side, torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double(), rtol=0, atol=1e-7)


def test_the_released_head_clips_its_logits_and_their_gradient():
    x = images(4, 3, 8, 8).requires_grad_()
    logits = double(ResNeXt34(4))(x)
    assert bool((logits >= 0).all())
    assert bool((logits == 0).any())
    assert bool((logits > 0).any())
    (gradient,) = torch.autograd.grad(logits[logits == 0].sum(), x)
    assert not bool(gradient.any())
    assert bool((double(ResNeXt34(4, head="linear"))(x) < 0).any())


@pytest.mark.parametrize("head", ["released", "linear"])
def test_every_image_is_taken(head):
    holds_for_any_network(lambda channels: double(ResNeXt34(6, in_channels=channels, head=head)))


def test_images_too_small_are_told():
    with pytest.raises(BadInput, match="sides must be at least 4"):
        ResNeXt34(2).eval()(torch.zeros(1, 3, 3, 8))


def test_weights_and_shifts_start_uniform():
    model = initialised(lambda: ResNeXt34(8), 0)
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(part.weight[0].numel())
            assert 0.95 * bound < float(part.weight.detach().abs().max()) <= bound
    shift = model.get_parameter("stages.2.2.bias")
    assert 0.7 / math.sqrt(16) < float(shift.detach().abs().max()) <= 1 / math.sqrt(16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNeXt34(branches=0), "'branches' of ResNeXt34 must be at least 1. Got 0"),
        (lambda: ResNeXt34(2, activation="tanh"), "must be 'relu' or 'smooth'. Got 'tanh'"),
        (lambda: ResNeXt34(2, head="none"), "must be 'released' or 'linear'. Got 'none'"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
