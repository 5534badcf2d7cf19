"""The neural ODE classifiers: scipy's solution of the same problem, and that untrained ones can be solved at all."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.data.load import load_data
from verigrad.models.networks.neural_ode import NeuralODECIFAR, NeuralODEMNIST
from verigrad.models.ode_block import ODEBlock, recording
from verigrad.solvers import Adjoint, BatchCoupled, Status
from verigrad.training.trainer import initialised


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def rewritten(model: torch.nn.Module, x: Tensor, *, convolutions: int, t1: float, norm: bool, time: bool) -> Tensor:
    """One image at a time: the stem and the head with functional torch, the flow by DOP853. Eight channels."""
    w = {name: weight.detach() for name, weight in model.named_parameters()}

    def normed(value: Tensor, name: str) -> Tensor:
        return F.group_norm(value, 8, w[f"{name}.weight"], w[f"{name}.bias"])

    def field(t: float, y: Tensor) -> Tensor:
        for i in range(convolutions):
            y = (normed(y, f"block.field.norms.{i}") if norm else y).clamp(min=0)
            if time:
                y = torch.cat([torch.full_like(y[:, :1], t), y], 1)
            y = F.conv2d(
                y, w[f"block.field.convolutions.{i}.weight"], w[f"block.field.convolutions.{i}.bias"], padding=1
            )
        return normed(y, "block.field.last_norm") if norm else y

    logits = []
    for image in x:
        y = F.conv2d(image[None], w["stem.0.weight"], w["stem.0.bias"])
        y = normed(y, "stem.1").clamp(min=0)
        y = F.conv2d(y, w["stem.3.weight"], w["stem.3.bias"], stride=2, padding=1)
        shape = y.shape

        def slope(t: float, flat: np.ndarray, shape=shape) -> np.ndarray:
            return field(t, torch.tensor(flat).reshape(shape)).flatten().numpy()

        solved = solve_ivp(slope, (0, t1), y.flatten().numpy(), method="DOP853", rtol=1e-7, atol=1e-7)
        y = normed(torch.tensor(solved.y[:, -1]).reshape(shape), "head.0").clamp(min=0).mean((2, 3))
        logits.append(y @ w["head.4.weight"].t() + w["head.4.bias"])
    return torch.cat(logits)


@pytest.mark.parametrize(
    ("make", "norm", "time"),
    [(NeuralODEMNIST, "group", True), (NeuralODECIFAR, "none", True), (NeuralODECIFAR, "group", False)],
)
def test_the_net_is_the_flow(make, norm, time):
    torch.manual_seed(0)
    model = make(8, 2, 2.0, 5, 2, halvings=1, norm=norm, time=time, tol=1e-6, control="sample", distance=2.0).double()
    x = images(2, 2, 8, 8)
    with torch.no_grad():
        got = model(x)
    want = rewritten(model, x, convolutions=2, t1=2.0, norm=norm == "group", time=time)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_the_three_gradients_agree():
    x = images(2, 1, 8, 8)
    found = {}
    for gradient in ("direct", "checkpointed", "adjoint"):
        torch.manual_seed(0)
        model = NeuralODEMNIST(
            8, 2, 2.0, 3, halvings=1, distance=2.0, tol=1e-5, grid="frozen", gradient=gradient
        ).double()
        loss = model(x).square().sum()
        found[gradient] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert (found["checkpointed"] - found["direct"]).norm() <= 1e-8 * found["direct"].norm()
    # The kinks of ReLU keep the adjoint further away than its tolerance says: some 26 % at 1e-3, and 2 % here.
    assert (found["adjoint"] - found["direct"]).norm() <= 0.1 * found["direct"].norm()


@pytest.mark.parametrize(
    ("make", "channels", "convolutions", "t1", "image", "pixels"),
    [(NeuralODEMNIST, 128, 4, 100.0, (1, 28, 28), 6), (NeuralODECIFAR, 256, 5, 500.0, (3, 32, 32), 7)],
)
def test_the_defaults_are_table_a1(make, channels, convolutions, t1, image, pixels):
    model = make()
    block = model.block
    assert isinstance(block, ODEBlock)
    assert (block.solver.method.name, block.solver.t0, block.solver.t1) == ("dopri5", 0.0, t1)
    assert isinstance(block.solver.control, BatchCoupled)
    field = [weight.shape for name, weight in block.field.named_parameters() if "convolutions" in name]
    assert field == [(channels, channels + 1, 3, 3), (channels,)] * convolutions
    assert model.stem(torch.rand(1, *image)).shape == (1, channels, pixels, pixels)
    norms = 2 * channels
    stem = channels * image[0] * 9 + channels + 2 * (norms + 16 * channels**2 + channels)
    ode = convolutions * ((channels + 1) * channels * 9 + channels + norms) + norms
    assert sum(p.numel() for p in model.parameters()) == stem + ode + norms + 10 * channels + 10
    assert isinstance(make(8, gradient="adjoint").block.solver.gradient, Adjoint)


def test_the_untrained_net_is_solved_without_effort():
    model = initialised(NeuralODEMNIST, 0).eval()
    x = F.interpolate(load_data("digits", n=4).x, size=28)
    with torch.no_grad(), recording(model) as walks:
        assert torch.isfinite(model(x)).all()
    walk = walks["block"]
    assert walk.status.tolist() == [Status.DONE] * 4
    # A few steps; a stiff field would take several for each unit of time.
    assert int(walk.stats.evaluations.max()) < 150


def test_the_distance_sets_the_speed_of_the_untrained_field():
    for norm in ("group", "none"):
        fast, slow = (
            initialised(lambda d=d, norm=norm: NeuralODEMNIST(8, 2, distance=d, norm=norm), 0) for d in (100.0, 2.0)
        )
        y, t = torch.rand(2, 8, 4, 4), torch.tensor(3.0)
        torch.testing.assert_close(slow.block.field(t, y), 0.02 * fast.block.field(t, y))
    weights = initialised(lambda: NeuralODEMNIST(8, 2, distance=100.0), 0).block.field.last_norm.weight
    assert torch.equal(weights, torch.ones(8))


@pytest.mark.parametrize(("channels", "size", "halvings"), [(1, 28, 2), (3, 32, 2), (1, 8, 1), (1, 10, 2)])
@pytest.mark.parametrize("make", [NeuralODEMNIST, NeuralODECIFAR])
def test_the_usual_images_are_solved(make, channels: int, size: int, halvings: int):
    torch.manual_seed(0)
    model = copy.deepcopy(make(8, in_channels=channels, halvings=halvings)).eval()
    with torch.no_grad():
        assert torch.isfinite(model(torch.rand(1, channels, size, size))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuralODEMNIST(48), "below 32 or a multiple of 32 .* Got 48"),
        (lambda: NeuralODEMNIST(8, halvings=-1), "'halvings' of NeuralODEMNIST must be at least 0. Got -1"),
        (lambda: NeuralODECIFAR(8, 0), "'convolutions' .* Got 0"),
        (lambda: NeuralODECIFAR(8, distance=0.0), "'distance' of NeuralODECIFAR .* above 0. Got 0.0"),
        (lambda: NeuralODECIFAR(8, t1=0), "'t1' .* Got 0"),
        (
            lambda: NeuralODECIFAR(8)(torch.zeros(1, 3, 32, 8)),
            "needs images of at least 10×10. Got 32×8",
        ),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
