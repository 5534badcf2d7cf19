"""SOBlock: the ODE stem by torchdiffeq 0.0.1, the rest on bare tensors; sizes, solver words and coupling."""

import pytest
import torch
import torch.nn.functional as F
from oracles import torchdiffeq_0_0_1
from torch import Tensor
from written_out import Tape, close, double, holds_for_any_network, images, parameters

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.models.networks.channel_copy import ChannelCopy
from verigrad.models.networks.resnet import ResNet10
from verigrad.models.networks.soblock import SOBlock, WideSOBlock
from verigrad.models.networks.wide_resnet import WideResNet
from verigrad.models.ode_block import RELEASED, ODEBlock, named_solver, recording
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import TORCHDIFFEQ_0_0_1, PerSample


def ode_stem(tape: Tape, image: Tensor, channels: int) -> Tensor:
    """x(1) of the skew field with γ = 0, from the repeated and the plain image."""
    kernel, *norms = [tape.take() for _ in range(9)]

    def group_norm(y: Tensor, index: int) -> Tensor:
        return F.group_norm(y, min(8, y.shape[1]), norms[2 * index], norms[2 * index + 1])

    def slope(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, z = group_norm(state[0], 0), group_norm(state[1], 1)
        back = kernel.transpose(0, 1).flip(2, 3)
        dx, dz = F.conv2d(z, kernel, padding=1), -F.conv2d(x, back, padding=1)
        return group_norm(F.leaky_relu(dx), 2), group_norm(F.leaky_relu(dz), 3)

    repeated = torch.stack([image[:, i % image.shape[1]] for i in range(channels)], 1)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.no_grad():
        end, _ = torchdiffeq_0_0_1().odeint(slope, (repeated, image), times, rtol=0.1, atol=0.1, method="dopri5")
    return end[1]


def test_the_net_written_out():
    model, x = double(SOBlock(4, 5, 2)), images(3, 2, 9, 12)
    tape = Tape(model)
    y = ode_stem(tape, x, 4)
    for stage in range(4):
        y = tape.basic(y, 1 if stage == 0 else 2)
    # torchdiffeq 0.0.1 keeps the exponent of its step-size rule in float32.
    close(model(x), tape.linear(y.flatten(2).mean(2)), 1e-6)
    tape.ends()


def test_the_wide_net_written_out():
    model, x = double(WideSOBlock(10, 2, 5, 2)), images(3, 2, 5, 6)
    tape = Tape(model)
    y = ode_stem(tape, x, 16)
    for stage in range(3):
        f = tape.conv(tape.norm(y).relu(), bias=True)
        stride = 1 if stage == 0 else 2
        f = tape.conv(tape.norm(f).relu(), stride, bias=True)
        y = f + tape.conv(y, stride, bias=True)
    close(model(x), tape.linear(tape.norm(y).relu().flatten(2).mean(2)), 1e-6)
    tape.ends()


def test_only_the_stem_differs_in_size():
    stem = 27 * 64 + 2 * 64  # convolution and batch norm
    block = 27 * 64 + 2 * (2 * 64 + 2 * 3)  # one kernel, four group norms
    assert parameters(SOBlock) == parameters(ResNet10) - stem + block
    stem, block = 27 * 16 + 16, 27 * 16 + 2 * (2 * 16 + 2 * 3)
    wide = parameters(lambda: WideResNet(variant="released"))
    assert parameters(WideSOBlock) == wide - stem + block
    assert parameters(SOBlock) == 4_903_382  # 4.90 and 46.17 million in the released code
    assert parameters(WideSOBlock) == 46_172_870


@pytest.mark.parametrize("make", [lambda **words: SOBlock(3, **words), lambda **words: WideSOBlock(10, 1, **words)])
def test_the_paper_s_block_is_equation_3(make):
    """Without norms and with σ the identity, x(1) is that of a matrix exponential, from x(0) = z(0)."""
    net = double(make(in_channels=2, variant="paper", activation="identity", gamma=0.2, tol=1e-9, control="sample"))
    (block,) = ode_blocks(net)
    kernel = dict(block.named_parameters())["field.kernel"]
    assert len(list(block.parameters())) == 1
    width = len(kernel)
    assert kernel.shape[1] == width
    basis = torch.eye(16 * width, dtype=torch.float64).reshape(-1, width, 4, 4)
    matrix = F.conv2d(basis, kernel, padding=1).flatten(1).t()
    skew = -0.2 * torch.eye(2 * len(matrix), dtype=torch.float64)
    skew[: len(matrix), len(matrix) :], skew[len(matrix) :, : len(matrix)] = matrix, -matrix.t()
    image = images(2, 2, 4, 4)
    copied = torch.stack([image[:, i % 2] for i in range(width)], 1).flatten(1)
    end = (torch.cat([copied, copied], 1) @ torch.matrix_exp(skew).t())[:, : len(matrix)]
    close(net.stem[:2](image).flatten(1), end, 1e-6)


def test_the_paper_leaves_the_other_parts_as_they_are():
    """One kernel of as many channels in as out takes the place of the convolution of 3, and nothing else changes."""
    assert parameters(lambda: SOBlock(variant="paper")) == 4_938_378 == parameters(ResNet10) + 9 * 64 * (64 - 3)
    assert parameters(lambda: SOBlock(32, variant="paper")) == 1_237_322
    wide = parameters(lambda: WideResNet(variant="released"))
    assert parameters(lambda: WideSOBlock(variant="paper")) == 46_174_666 == wide + 9 * 16 * (16 - 3) - 16
    stem = [type(part) for part in SOBlock(8, variant="paper").stem]
    assert stem == [ChannelCopy, ODEBlock, torch.nn.BatchNorm2d, torch.nn.ReLU]
    assert [type(part) for part in WideSOBlock(10, 1, variant="paper").stem] == [ChannelCopy, ODEBlock]


@pytest.mark.parametrize("make", [lambda **words: SOBlock(8, **words), lambda **words: WideSOBlock(10, 1, **words)])
def test_the_solver_is_the_released_one_or_what_words_say(make):
    (block,) = ode_blocks(make())
    assert block.solver == RELEASED
    (block,) = ode_blocks(make(method="rk4", steps=3, grid="frozen", tol=0.01, control="sample"))
    assert block.solver == named_solver(method="rk4", steps=3, grid="frozen", tol=0.01, control="sample")


@pytest.mark.parametrize("make", [lambda **words: SOBlock(8, **words), lambda **words: WideSOBlock(10, 1, **words)])
def test_batch_mates_count_under_the_released_solver_alone(make):
    model, x = double(make()), images(4, 3, 8, 8)
    x[0] *= 0.01
    assert batch_coupled(model)
    own = twin(model, control=PerSample(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_0_1, end="interpolate"))
    assert not batch_coupled(own)
    with torch.no_grad(), recording(model) as walks:
        joint = model(x)
        assert set(walks) == {"stem"}
        single = torch.cat([model(one[None]) for one in x])
        assert float((joint - single).norm()) > 1e-4 * float(single.norm())
        close(own(x), single, 1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda channels: SOBlock(2, in_channels=channels, control="sample"),
        lambda channels: WideSOBlock(10, 1, in_channels=channels, method="rk4"),
    ],
)
def test_every_image_is_taken(make):
    holds_for_any_network(lambda channels: double(make(channels)))


def test_the_stem_is_the_whole_of_the_first_layer():
    assert isinstance(SOBlock(8).stem, ODEBlock)
    assert isinstance(WideSOBlock(10, 1).stem, ODEBlock)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SOBlock(12), "must be below 8 or a multiple of 8"),
        (lambda: SOBlock(8, method="rk5"), "'method' must be one of"),
        (lambda: SOBlock(8, classes=0), "'classes' of SOBlock must be at least 1"),
        (lambda: WideSOBlock(11), "must be 6n \\+ 4"),
        (lambda: WideSOBlock(10, control="none"), "must be 'batch' or 'sample'"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
