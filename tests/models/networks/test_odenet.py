"""ODENet is the released layout: counted, and solved a second time with functional torch and torchdiffeq 0.0.1."""

import copy

import pytest
import torch
import torch.nn.functional as F
from oracles import torchdiffeq_0_0_1
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.conv_fields import ConvField
from verigrad.models.networks.odenet import ODENet
from verigrad.models.ode_block import recording
from verigrad.solvers import Status


def tiny(**words) -> ODENet:
    torch.manual_seed(0)
    return ODENet(8, 2, 5, 3, **words).double().eval()


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def derivative(weights: dict[str, Tensor], block: int, t: Tensor, y: Tensor) -> Tensor:
    """GN, ReLU, conv with time, twice, and GN; the time's share of a convolution taken apart."""

    def norm(value: Tensor, name: str) -> Tensor:
        return F.group_norm(value, 8, weights[f"{name}.weight"], weights[f"{name}.bias"])

    at = f"blocks.{block}.field"
    for index in range(2):
        y = norm(y, f"{at}.norms.{index}").clamp(min=0)
        kernel, bias = weights[f"{at}.convolutions.{index}.weight"], weights[f"{at}.convolutions.{index}.bias"]
        ones = torch.ones_like(y[:, :1])
        y = F.conv2d(y, kernel[:, 1:], bias, padding=1) + t * F.conv2d(ones, kernel[:, :1], padding=1)
    return norm(y, f"{at}.last_norm")


def rewritten(model: ODENet, x: Tensor, method: str, tol: float) -> Tensor:
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    y = x[:, [0, 1, 2, 0, 1, 2, 0, 1]].contiguous()
    for block in range(2):
        y = torchdiffeq_0_0_1().odeint(
            lambda t, state, block=block: derivative(weights, block, t, state),
            y,
            torch.tensor([0.0, 1.0], dtype=torch.float64),
            rtol=tol,
            atol=tol,
            method=method,
        )[1]
    y = F.group_norm(y, 8, weights["head.0.weight"], weights["head.0.bias"])
    # 9×9 pixels in 3×3 cells.
    cells = y.reshape(len(y), 8, 3, 3, 3, 3).mean((3, 5)).flatten(1)
    return cells @ weights["head.3.weight"].t() + weights["head.3.bias"]


@pytest.mark.parametrize(
    ("method", "tol"), [("euler", 0.1), ("rk4", 0.1), ("dopri5", 0.1), ("dopri5", 0.01), ("dopri5", 0.001)]
)
def test_the_net_of_table_2(method: str, tol: float):
    model, x = tiny(method=method, tol=tol), images(3, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(model(x), rewritten(model, x, method, tol), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_its_gradient_is_theirs():
    model, x = tiny(), images(3, 3, 9, 9).requires_grad_()
    ours, theirs = (
        torch.autograd.grad(out.square().sum(), x)[0] for out in (model(x), rewritten(model, x, "dopri5", 0.1))
    )
    # torchdiffeq 0.0.1 keeps its exponents in float32, and sums cancel: the whole gradient is the measure.
    assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_under_own_steps_each_sample_has_its_own_time():
    model, x = tiny(control="sample", tol=1e-3), images(3, 3, 8, 8)
    x[0] *= 0.01
    with torch.no_grad(), recording(model) as walks:
        got = model(x)
    grid = walks["blocks.0"].grid
    assert not torch.equal(grid.h[0], grid.h[1])
    with torch.no_grad():
        torch.testing.assert_close(got, torch.cat([model(one[None]) for one in x]), rtol=1e-6, atol=1e-6)


def test_the_size_is_the_released_one():
    """0.76 million in the released code: ten blocks of two convolutions that see the time, and three norms."""
    assert sum(p.numel() for p in ODENet().parameters()) == 759_818
    assert 759_818 == 10 * (2 * (65 * 64 * 9 + 64) + 3 * 128) + 128 + 9 * 64 * 10 + 10


def test_a_field_without_time_or_norms():
    torch.manual_seed(0)
    field = ConvField(4, convolutions=3, norm="none", time=False).double()
    y = images(2, 4, 5, 5)
    want = y
    for convolution in field.convolutions:
        assert isinstance(convolution, torch.nn.Conv2d)
        want = F.conv2d(want.clamp(min=0), convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(field(torch.tensor(0.3), y), want)
    assert len(list(field.parameters())) == 6


@pytest.mark.parametrize(("channels", "shape"), [(1, (28, 28)), (3, (32, 32)), (1, (8, 8)), (1, (2, 1))])
def test_the_usual_images_are_solved(channels: int, shape: tuple[int, int]):
    torch.manual_seed(0)
    model = copy.deepcopy(ODENet(8, 2, in_channels=channels)).eval()
    with torch.no_grad(), recording(model) as walks:
        assert model(torch.rand(1, channels, *shape)).shape == (1, 10)
    assert all(walk.status.tolist() == [Status.DONE] for walk in walks.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ODENet(54), "below 8 or a multiple of 8 .* Got 54"),
        (lambda: ODENet(8, 0), "'blocks' of ODENet must be at least 1. Got 0"),
        (lambda: ODENet(8, 1, method="rk5"), "Got 'rk5'"),
        (lambda: ConvField(8, convolutions=0), "'convolutions' .* Got 0"),
        (lambda: ConvField(8, norm="batch"), "must be 'group' or 'none'. Got 'batch'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
