"""The nets of Eq. (3) against scipy's solution of Eq. (3), written out with dense matrices."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.networks.skew import SkewConvNet, SkewLinearNet
from verigrad.models.ode_block import recording
from verigrad.solvers import Status


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def dense(kernel: Tensor, stride: int, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a convolution on images of that shape."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
    return F.conv2d(basis, kernel.detach(), stride=stride, padding=1).flatten(1).t().numpy()


def equation_3(matrix: np.ndarray, out: np.ndarray, start: np.ndarray, gamma: float, sigma) -> np.ndarray:
    """out(1) of out' = σ(M y - γ out), y' = σ(-Mᵀ out - γ y), for one sample."""
    size = len(out)

    def slope(t, state):
        o, y = state[:size], state[size:]
        return sigma(np.concatenate([matrix @ y - gamma * o, -matrix.T @ o - gamma * y]))

    solved = solve_ivp(slope, (0, 1), np.concatenate([out, start]), method="DOP853", rtol=1e-10, atol=1e-10)
    return solved.y[:size, -1]


def softplus(x):
    return np.logaddexp(0, x)


@pytest.mark.parametrize(("activation", "sigma"), [("tanh", np.tanh), ("softplus", softplus)])
def test_the_convolutional_net_is_equation_3(activation, sigma):
    torch.manual_seed(0)
    model = SkewConvNet(
        3, (1, 2), 5, 1, gamma=0.3, activation=activation, tol=1e-9, method="tsit5", control="sample"
    ).double()
    x = random(2, 1, 8, 8)
    weights = dict(model.named_parameters())
    want = []
    for image in x:
        first = dense(weights["blocks.0.field.kernel"], 1, (1, 8, 8))
        y = equation_3(first, image.repeat(3, 1, 1).flatten().numpy(), image.flatten().numpy(), 0.3, sigma)
        inner = y.reshape(3, 8, 8)
        halved = np.concatenate([inner, inner])[:, ::2, ::2]
        second = dense(weights["blocks.1.field.kernel"], 2, (3, 8, 8))
        end = equation_3(second, halved.flatten(), y, 0.3, sigma)
        want.append(weights["head.2.weight"].detach().numpy() @ end + weights["head.2.bias"].detach().numpy())
    torch.testing.assert_close(model(x), torch.tensor(np.array(want)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_the_linear_net_is_equation_3_from_ones(hidden):
    torch.manual_seed(0)
    model = SkewLinearNet(hidden, 3, 2, 4, gamma=0.1, activation="tanh", tol=1e-9, control="sample").double()
    x = random(3, 2, 4, 4)
    want = []
    for image in x:
        y = image.flatten().numpy()
        for weight in model.parameters():
            # z' = σ(-Wᵀ y - γ z): the matrix into z is -Wᵀ.
            y = equation_3(-weight.detach().numpy().T, np.ones(weight.shape[1]), y, 0.1, np.tanh)
        want.append(y)
    torch.testing.assert_close(model(x), torch.tensor(np.array(want)), rtol=1e-6, atol=1e-6)


def test_the_sizes():
    count = [sum(p.numel() for p in model.parameters()) for model in (SkewConvNet(), SkewLinearNet())]
    assert count == [64 * 3 * 9 + 16 * 64 * 10 + 10, 784 * 10]
    released = SkewConvNet(8, (1, 2), variant="released")
    assert sum(p.numel() for p in released.blocks.parameters()) == 8 * 27 + 4 * 11 + 16 * 8 * 16 + 4 * 24


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: SkewConvNet(8, in_channels=1), (1, 28, 28)),
        (lambda: SkewConvNet(8, (1, 2, 2)), (3, 32, 32)),
        (lambda: SkewConvNet(8, (2,), in_channels=1, variant="released"), (1, 8, 8)),
        (lambda: SkewLinearNet(), (1, 28, 28)),
        (lambda: SkewLinearNet((16,), in_channels=3, size=32), (3, 32, 32)),
        (lambda: SkewLinearNet(size=8, variant="released"), (1, 8, 8)),
    ],
)
def test_the_usual_images_are_solved(model, shape):
    torch.manual_seed(0)
    net = copy.deepcopy(model()).eval()
    with torch.no_grad(), recording(net) as walks:
        assert net(torch.rand(1, *shape)).shape == (1, 10)
    assert {status for walk in walks.values() for status in walk.status.tolist()} == {int(Status.DONE)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SkewConvNet(strides=()), "'strides' of SkewConvNet .* Got none"),
        (lambda: SkewConvNet(strides=(3,)), "must be 1 or 2. Got 3"),
        (lambda: SkewConvNet(activation="relu"), "Got 'relu'"),
        (lambda: SkewLinearNet(activation="relu"), "Got 'relu'"),
        (lambda: SkewLinearNet((0,)), "must be at least 1. Got \\(784, 0, 10\\)"),
        (lambda: SkewLinearNet()(torch.zeros(1, 3, 32, 32)), "Got \\(3, 32, 32\\); set its 'in_channels' and 'size'"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
