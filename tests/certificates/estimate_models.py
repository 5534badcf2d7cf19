"""Classifiers whose L, ω and distance to the nearest error are known, and a counter of passes."""

import torch
from torch import Tensor, nn

SHAPE = (1, 3, 4)
PIXELS = 12


class Planes(nn.Module):
    """Logits Wx + b of several classes."""

    def __init__(self, seed: int = 0, classes: int = 4) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(classes, PIXELS, generator=draw, dtype=torch.float64))
        self.b = nn.Parameter(-(self.w.detach().sum(1)) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.T.to(x.dtype) + self.b.to(x.dtype)

    def distances(self, x: Tensor, y: Tensor, dual: float) -> Tensor:
        """(N,) distance to the nearest other class without the box; `dual` is the p of the dual norm."""
        logits = self(x).detach()
        gaps = logits.gather(1, y[:, None]) - logits
        slopes = (self.w.detach()[y][:, None] - self.w.detach()[None]).norm(p=dual, dim=2)
        return torch.where(slopes > 0, gaps / slopes, torch.inf).amin(1)


class Bowl(nn.Module):
    """Logits (0, a/2 ‖x − ½‖² − level): ℓ of class 0 is the second, and r(v) = a/2 ‖v‖²."""

    def __init__(self, a: float = 2.0, level: float = 0.5) -> None:
        super().__init__()
        self.a, self.level = a, level

    def forward(self, x: Tensor) -> Tensor:
        second = self.a / 2 * (x - 0.5).flatten(1).square().sum(1) - self.level
        return torch.stack([torch.zeros_like(second), second], dim=1)


class PassCount(nn.Module):
    """Counts how many images went forward and backward through a model."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._back)
        return self.inner(x)

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def images(n: int = 60, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def around_the_middle(n: int = 40, seed: int = 0, width: float = 0.4) -> Tensor:
    """Images so far from the box that no ball of radius 0.25 is cut."""
    return 0.5 + width * (images(n, seed) - 0.5)
