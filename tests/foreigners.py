"""Classifiers of digits written on torchdiffeq, as somebody else would: no part of verigrad is in them."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from oracles import torchdiffeq_0_0_1, torchdiffeq_0_2_5
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "nets" / "sonet" / "model.safetensors"


class SkewConv(nn.Module):
    """x' = N(σ(W∗N(z))), z' = N(σ(−Wᵀ∗N(x)))."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        size = 3 if stride == 1 else 4
        self.kernel = nn.Parameter(torch.empty(outside, inside, size, size))
        self.norm_x, self.norm_dx = (nn.GroupNorm(min(8, outside), outside) for _ in range(2))
        self.norm_z, self.norm_dz = (nn.GroupNorm(min(8, inside), inside) for _ in range(2))

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, z = self.norm_x(state[0]), self.norm_z(state[1])
        dx = F.conv2d(z, self.kernel, stride=self.stride, padding=1)
        dz = -F.conv_transpose2d(x, self.kernel, stride=self.stride, padding=1)
        return self.norm_dx(F.leaky_relu(dx)), self.norm_dz(F.leaky_relu(dz))


class SkewLinear(nn.Module):
    """y' = W σ(z) + b₁, z' = −Wᵀ σ(y) + b₂, of both in one tensor."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.sizes = [features, classes]
        self.weight = nn.Parameter(torch.empty(features, classes))
        self.bias = nn.Parameter(torch.empty(features + classes))

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        y, z = F.leaky_relu(state).split(self.sizes, 1)
        return torch.cat([z @ self.weight.t(), -(y @ self.weight)], 1) + self.bias


class ForeignSONet(nn.Module):
    """The SONet of 16 channels and one block a stage, with the weights of the demo's net."""

    def __init__(self, library: ModuleType, *, adjoint: bool = False, tol: float = 0.1) -> None:
        super().__init__()
        # The function is taken from its module here and now, as `from torchdiffeq import odeint` takes it.
        self.integrate = library.odeint_adjoint if adjoint else library.odeint
        self.tol = tol
        widths, strides = (1, 16, 16, 32, 64, 128), (1, 1, 2, 2, 2)
        self.fields = nn.ModuleList(SkewConv(*one) for one in zip(widths, widths[1:], strides, strict=False))
        self.head = SkewLinear(128, 10)

    def solved(self, field: nn.Module, y0: Tensor | tuple[Tensor, ...]) -> Tensor:
        t = torch.tensor([0.0, 1.0])
        ends = self.integrate(field, y0, t, rtol=self.tol, atol=self.tol, method="dopri5")
        return ends[1] if isinstance(y0, Tensor) else ends[0][1]

    def forward(self, x: Tensor) -> Tensor:
        for field in self.fields:
            outside, inside = field.kernel.shape[:2]
            start = x[:, :, :: field.stride, :: field.stride].repeat(1, math.ceil(outside / inside), 1, 1)
            x = self.solved(field, (start, x))
        pooled = x.mean((2, 3))
        return self.solved(self.head, torch.cat([pooled, pooled.new_full((len(x), 10), 0.1)], 1))[:, 128:]


def sonet_on(library: ModuleType, **named: object) -> ForeignSONet:
    model = ForeignSONet(library, **named)
    blocks = ["stem", *(f"stages.{i}.0" for i in range(4)), "classifier"]
    parts = [f"fields.{i}" for i in range(5)] + ["head"]
    saved, weights = load_file(str(WEIGHTS)), {}
    for block, part in zip(blocks, parts, strict=True):
        start = f"{block}.field."
        weights |= {f"{part}.{name[len(start) :]}": w for name, w in saved.items() if name.startswith(start)}
    assert len(weights) == len(saved)
    model.load_state_dict(weights)
    return model.eval()


def old_sonet() -> nn.Module:
    """On torchdiffeq 0.0.1, which the SONet code pins."""
    return sonet_on(torchdiffeq_0_0_1())


def new_sonet() -> nn.Module:
    return sonet_on(torchdiffeq_0_2_5())


def adjoint_sonet() -> nn.Module:
    return sonet_on(torchdiffeq_0_2_5(), adjoint=True)


class TimedConv(nn.Module):
    """Time as one more channel, which works for one time alone (the MNIST net of Chen et al. 2018 does it so)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1)))


class TimedNet(nn.Module):
    """Two convolutions, an ODE that knows the time, a linear head; weights as they are drawn from a seed."""

    def __init__(self, library: ModuleType, **call: object) -> None:
        super().__init__()
        self.integrate, self.call = library.odeint, call
        self.stem, self.field, self.head = nn.Conv2d(1, 4, 3, stride=2), TimedConv(4), nn.Linear(36, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.integrate(self.field, self.stem(x), torch.tensor([0.0, 1.0]), **self.call)[-1]
        return self.head(y.flatten(1))


def timed_net(**call: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TimedNet(torchdiffeq_0_2_5(), **{"rtol": 1e-3, "atol": 1e-3, **call}).eval()
