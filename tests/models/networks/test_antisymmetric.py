"""The operator of the antisymmetric convolution as a dense matrix, and its eigenvalues."""

import pytest
import torch
from torch import Tensor, nn
from written_out import double

from verigrad.core.errors import BadInput
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d


def matrix(operator: nn.Module, channels: int, height: int, width: int) -> Tensor:
    """The matrix of a linear map on flattened images, column by column from basis images."""
    basis = torch.eye(channels * height * width, dtype=torch.float64).reshape(-1, channels, height, width)
    with torch.no_grad():
        return operator(basis).flatten(1).t()


@pytest.mark.parametrize(
    ("channels", "size", "height", "width"), [(3, 3, 5, 4), (1, 3, 4, 4), (4, 1, 2, 3), (2, 5, 3, 6)]
)
@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_the_operator_is_antisymmetric_but_for_gamma(channels: int, size: int, height: int, width: int, gamma: float):
    layer = double(AntisymmetricConv2d(channels, size, gamma=gamma))
    assert isinstance(layer, AntisymmetricConv2d)
    layer.gamma.fill_(gamma)  # 0.25 and 0 are exact in float32
    got = matrix(layer, channels, height, width)
    plain = nn.Conv2d(channels, channels, size, padding=size // 2, bias=False).double()
    plain.weight = layer.weight
    conv = matrix(plain, channels, height, width)
    torch.testing.assert_close(got, conv - conv.t() - gamma * torch.eye(len(conv), dtype=torch.float64))
    eigenvalues = torch.linalg.eigvals(got)
    largest = float(eigenvalues.abs().max())
    assert largest > 0.1 or (channels, size) == (1, 1)
    assert float((eigenvalues.real + gamma).abs().max()) < 1e-12 * max(largest, 1)


def test_to_swap_the_channels_alone_is_not_enough():
    """The control: K[o, i] - K[i, o] without the reversed pixels has real parts on both sides."""
    layer = double(AntisymmetricConv2d(3))
    assert isinstance(layer, AntisymmetricConv2d)
    swapped = nn.Conv2d(3, 3, 3, padding=1, bias=False).double()
    swapped.weight = nn.Parameter(layer.weight - layer.weight.transpose(0, 1))
    real = torch.linalg.eigvals(matrix(swapped, 3, 5, 4)).real
    assert float(real.max()) > 0.1
    assert float(real.min()) < -0.1


def test_gamma_is_part_of_what_a_model_is():
    assert set(AntisymmetricConv2d(2, gamma=0.5).state_dict()) == {"weight", "gamma"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AntisymmetricConv2d(2, 4), "must be odd and positive. Got 4"),
        (lambda: AntisymmetricConv2d(2, gamma=-0.1), r"in \[0, inf\). Got -0.1"),
        (lambda: AntisymmetricConv2d(2, gamma=float("nan")), r"in \[0, inf\). Got nan"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
