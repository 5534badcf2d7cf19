"""Initial value problems for the solver tests: closed forms, conv fields, and the awkward ones."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.solvers import Tableau


def column(t: Tensor, like: Tensor) -> Tensor:
    """Time as a field must broadcast it: 0-d, or (B,) against (B, ...)."""
    return t if t.dim() == 0 else t.reshape(-1, *[1] * (like.dim() - 1))


def rotation(t: Tensor, y: Tensor) -> Tensor:
    """y'' = −y with a drive, (B, 2); see `rotated`."""
    time = t if t.dim() == 0 else t[:, None]
    return torch.stack([y[:, 1], -y[:, 0]], 1) * (1 + 0.5 * torch.cos(time))


def rotated(y0: Tensor, t: float) -> Tensor:
    """The solution of `rotation` from t = 0: a turn by t + sin(t)/2."""
    angle = t + 0.5 * math.sin(t)
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * y0[:, 0] + s * y0[:, 1], c * y0[:, 1] - s * y0[:, 0]], 1)


class ConvField(nn.Module):
    """A smooth field on one image-shaped tensor, with time."""

    def __init__(self, channels: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(channels, channels, 3, 3, generator=generator, dtype=dtype) * 0.3
        self.weight = nn.Parameter(weight)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(F.conv2d(y, self.weight, padding=1)) * (1 + column(t, y))


class PairField(nn.Module):
    """The field of the SONet paper, Eq. (4), without norms: x' = φ(conv z), z' = φ(−convᵀ x); the parts differ in
    shape.
    """

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(4, 2, 3, 3, generator=generator, dtype=dtype) * 0.4
        self.weight = nn.Parameter(weight)

    def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, z = y
        x_slope = F.leaky_relu(F.conv2d(z, self.weight, padding=1))
        z_slope = F.leaky_relu(-F.conv_transpose2d(x, self.weight, padding=1))
        return x_slope * (1 + column(t, x)), z_slope


def images(batch: int, channels: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    """Standard normal, of sizes that grow with the sample, so that samples need different steps."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.linspace(0.5, 2.0, batch, dtype=dtype).reshape(-1, 1, 1, 1)
    return torch.randn(batch, channels, 5, 5, generator=generator, dtype=dtype) * size


def loss(y: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A scalar that weighs every entry differently."""
    parts = (y,) if isinstance(y, Tensor) else y
    return sum(
        ((p * torch.cos(torch.arange(p.numel(), dtype=p.dtype)).reshape(p.shape)).sum() for p in parts), torch.zeros(())
    )


def apart(a: object, b: object) -> float:
    """The largest relative distance between tensors, or tuples of them."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert isinstance(a, tuple)
    assert isinstance(b, tuple)
    return max(apart(p, q) for p, q in zip(a, b, strict=True))


def leaf(y: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """A copy that collects a gradient."""
    return y.detach().clone().requires_grad_() if isinstance(y, Tensor) else tuple(leaf(p) for p in y)


def gradients(y1: Tensor | tuple[Tensor, ...], *inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradient of `loss` for all inputs."""
    flat = [p for i in inputs for p in ((i,) if isinstance(i, Tensor) else i)]
    return torch.autograd.grad(loss(y1), flat)


def fitted_order(solve_with: Callable[[int], Tensor], truth: Tensor, steps: tuple[int, ...]) -> float:
    """The slope of log(error) against log(step)."""
    errors = [float((solve_with(n) - truth).abs().max()) for n in steps]
    x = [-math.log(n) for n in steps]
    y = [math.log(e) for e in errors]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


WRONG = Tableau(
    name="wrong", order=4, c=(0.0, 0.5, 0.5, 1.0), a=((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), b=(0.2, 0.3, 0.3, 0.2)
)
"""The control that must fail: consistent, but not of the order that it claims."""
