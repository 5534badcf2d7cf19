"""The frame of PolyNet, FractalNet and RevNet written a second time with plain functions; what their tests share."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCHEMES = Path(__file__).parents[3] / "docs" / "math" / "schemes.md"
POINTS = (-0.5, -1.0, -2.0, 1j, 2j)  # the columns of the table of |R(z)| there

Weights = Iterator[Tensor]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, seed: int = 1) -> nn.Module:
    """In float64 and eval mode, with norms that are not the identity."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for part in [*model.parameters(), *model.buffers()]:
            if part.is_floating_point():
                part.add_(0.2 * torch.rand(part.shape, dtype=torch.float64, generator=generator))
    return model


def normed(y: Tensor, norm: str, take: Weights) -> Tensor:
    """GroupNorm or BatchNorm in eval mode, written out, with their tensors in the order of the state."""
    if norm == "none":
        return y
    scale, shift = next(take), next(take)
    if norm == "group":
        groups = y.reshape(len(y), min(8, y.shape[1]), -1)
        mean = groups.mean(2, keepdim=True)
        var = (groups - mean).square().mean(2, keepdim=True)
        normal = ((groups - mean) / (var + 1e-5).sqrt()).reshape(y.shape)
    else:
        mean, var, _ = next(take), next(take), next(take)
        normal = (y - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return normal * scale[:, None, None] + shift[:, None, None]


def convolved(y: Tensor, norm: str, take: Weights, stride: int = 1) -> Tensor:
    kernel = next(take)
    return F.conv2d(y, kernel, next(take) if norm == "none" else None, stride=stride, padding=1)


def residual(y: Tensor, norm: str, tensors: Sequence[Tensor]) -> Tensor:
    """The branch F, from its own tensors."""
    take = iter(tensors)
    for _ in range(2):
        y = convolved(normed(y, norm, take).clamp(min=0), norm, take)
    return y


def branch_tensors(norm: str) -> int:
    """How many tensors `residual` takes."""
    return {"group": 6, "batch": 12, "none": 4}[norm]


def framed(model: nn.Module, x: Tensor, norm: str, stage: Callable[[Tensor, Weights], Tensor]) -> Tensor:
    """The logits, with `stage` applied three times; it takes its own tensors."""
    take = iter(model.state_dict().values())
    y = convolved(x, norm, take)
    for i in range(3):
        if i:
            y = convolved(normed(y, norm, take).clamp(min=0), norm, take, stride=2)
        y = stage(y, take)
    features = normed(y, norm, take).clamp(min=0).mean((2, 3))
    return features @ next(take).t() + next(take)


def frame_parameters(width: int, classes: int, in_channels: int) -> int:
    """Of all but the stages, with a norm of two numbers a channel: 9 in w + 2w + 18w² + 4w + 72w² + 8w + (4w + 1) K."""
    return 9 * in_channels * width + 90 * width**2 + 14 * width + (4 * width + 1) * classes


def slope(errors: Sequence[float], steps: Sequence[float]) -> float:
    """The slope of log(error) against log(step), by least squares."""
    x, y = [math.log(h) for h in steps], [math.log(e) for e in errors]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def written(name: str) -> list[float]:
    """The row of that name in the table of docs/math/schemes.md."""
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", SCHEMES.read_text(encoding="utf-8"), re.MULTILINE)
    return [float(cell) for cell in row.split("|")[1:]]


class Times(nn.Module):
    """y ↦ z y, of any type."""

    def __init__(self, z: complex) -> None:
        super().__init__()
        self.z = z

    def forward(self, y: Tensor) -> Tensor:
        return self.z * y


class Tanh(nn.Module):
    """y ↦ tanh(A y + b) on (B, n): smooth, and 0 at 0 without b."""

    def __init__(self, n: int, *, bias: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.matrix = random(n, n, seed=seed) / math.sqrt(n)
        self.bias = random(n, seed=seed + 1) * (1.0 if bias else 0.0)

    def forward(self, y: Tensor) -> Tensor:
        return torch.tanh(y @ self.matrix.t() + self.bias)
