"""Classifiers whose behaviour under attack is known in closed form, or wrong in one known way."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

SHAPE = (2, 3, 3)
PIXELS = 18


class Linear(nn.Module):
    """Two classes with logits (0, ⟨w, x⟩ - threshold): every attack's best is known exactly."""

    def __init__(self, w: Tensor, threshold: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        second = x.flatten(1) @ self.w.to(x.dtype) - self.threshold
        return torch.stack([torch.zeros_like(second), second], dim=1)


def linear_problem(n: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Images (n, 2, 3, 3), some of their pixels exactly on the box's border, labels 0, and weights (18,)."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *SHAPE, generator=draw, dtype=torch.float64)
    x = torch.where(x < 0.15, 0.0, torch.where(x > 0.85, 1.0, x))
    w = torch.randn(PIXELS, generator=draw, dtype=torch.float64)
    return x.to(dtype), torch.zeros(n, dtype=torch.int64), w.to(dtype)


def hard_linear(dtype: torch.dtype = torch.float32) -> Linear:
    """The linear classifier at whose threshold some samples of `linear_problem` fall to eps = 0.1 and some do not."""
    x, _, w = linear_problem(dtype=dtype)
    return Linear(w, float((x.flatten(1) @ w).quantile(0.6)) + 0.7)


def best_linf(w: np.ndarray, x: np.ndarray, eps: float) -> float:
    """max ⟨w, d⟩ over ‖d‖∞ ≤ eps, 0 ≤ x + d ≤ 1."""
    return float((np.maximum(w, 0) * np.minimum(eps, 1 - x) + np.maximum(-w, 0) * np.minimum(eps, x)).sum())


def best_l2(w: np.ndarray, x: np.ndarray, eps: float) -> float:
    """max ⟨w, d⟩ over ‖d‖₂ ≤ eps, 0 ≤ x + d ≤ 1: d = clip(t·w) with the t that uses up eps, found by bisection."""

    def move(t: float) -> np.ndarray:
        return np.clip(t * w, -x, 1 - x)

    low, high = 0.0, 1e9
    if np.linalg.norm(move(high)) <= eps:
        return float(w @ move(high))
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(move(middle)) < eps else (low, middle)
    return float(w @ move(low))


class Saturated(nn.Module):
    """The same classifier with logits 1000 times as large: cross-entropy loses its gradient, the margin does not."""

    def __init__(self, inner: nn.Module, scale: float = 1000.0) -> None:
        super().__init__()
        self.inner = inner
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale


class Quantised(nn.Module):
    """The same classifier behind a rounding to `levels` grey levels, whose derivative is zero everywhere."""

    def __init__(self, inner: nn.Module, levels: int = 8) -> None:
        super().__init__()
        self.inner = inner
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * (self.levels - 1)).round() / (self.levels - 1))


class _BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, value: float) -> Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        return gradients[0] * ctx.value, None


class NonFiniteGradient(nn.Module):
    """The same classifier with every derivative NaN or infinite; the predictions are right."""

    def __init__(self, inner: nn.Module, value: float = float("nan")) -> None:
        super().__init__()
        self.inner = inner
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_BadGradient.apply(x, self.value))


class NonFiniteLogits(nn.Module):
    """The same classifier, but NaN wherever the input left the clean images: no attack can show an error on it."""

    def __init__(self, inner: nn.Module, clean: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.clean = clean.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.cdist(x.flatten(1).double(), self.clean.double()).amin(1) > 1e-4
        return torch.where(moved[:, None], torch.nan, self.inner(x))


class Coupled(nn.Module):
    """The same classifier plus `strength` times the batch's mean logits: predictions depend on batch-mates."""

    batch_coupled = True

    def __init__(self, inner: nn.Module, strength: float = 1.0) -> None:
        super().__init__()
        self.inner = inner
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + self.strength * logits.mean(0, keepdim=True)


class Random(nn.Module):
    """The same classifier with normal noise on its input, drawn from torch's global generator."""

    def __init__(self, inner: nn.Module, sigma: float = 0.05) -> None:
        super().__init__()
        self.inner = inner
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + self.sigma * torch.randn_like(x))


class Counting(nn.Module):
    """Counts the passes of each image, which it knows by the grey level of its first pixel (see `stamped`).

    The classifier behind it does not see that pixel, so that no attack has a reason to move it far.
    """

    def __init__(self, inner: nn.Module, n: int) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = np.zeros(n, dtype=np.int64)
        self.backwards = np.zeros(n, dtype=np.int64)

    def forward(self, x: Tensor) -> Tensor:
        who = (x.detach()[:, 0, 0, 0] * len(self.forwards) - 0.5).round().long().tolist()
        np.add.at(self.forwards, who, 1)
        if x.requires_grad:
            seen = x.clone()
            seen.register_hook(lambda gradient: np.add.at(self.backwards, who, 1))
            x = seen
        blind = torch.ones_like(x)
        blind[:, 0, 0, 0] = 0
        return self.inner(x * blind)


def stamped(x: Tensor) -> Tensor:
    """The images with their number written into the first pixel, as `Counting` reads it."""
    x = x.clone()
    x[:, 0, 0, 0] = (torch.arange(len(x), dtype=x.dtype) + 0.5) / len(x)
    return x


class Dirty(nn.Module):
    """A classifier full of state that an attack could disturb: batch norm, dropout, a frozen and a graded weight."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
        )
        self.head = nn.Linear(4 * SHAPE[1] * SHAPE[2], classes)
        self.head.bias.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


Wrap = Callable[[nn.Module], nn.Module]
