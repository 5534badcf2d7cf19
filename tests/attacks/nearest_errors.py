"""Exact distances of the nearest error of a linear classifier, and small problems for minimal attacks."""

from collections.abc import Callable

import numpy as np
import torch
from controls import Linear, linear_problem
from torch import Tensor, nn


def linear(dtype: torch.dtype = torch.float64) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear classifier, images, labels 0, and how far (B,) each image's score is below the threshold."""
    x, y, w = linear_problem(dtype=dtype)
    scores = x.flatten(1) @ w
    model = Linear(w, float(scores.quantile(0.6)) + 0.7)
    return model, x, y, model.threshold - scores.double()


def exact(model: Linear, x: Tensor, lead: Tensor, best: Callable[[np.ndarray, np.ndarray, float], float]) -> Tensor:
    """(B,) the eps whose best gain is the lead, by bisection; 0 for errors."""
    w, found = model.w.detach().double().numpy(), []
    for image, need in zip(x.double().flatten(1).numpy(), lead.tolist(), strict=True):
        low, high = 0.0, 5.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if best(w, image, middle) < need else (low, middle)
        found.append(high if need > 0 else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def exact_pixels(model: Linear, x: Tensor, lead: Tensor) -> Tensor:
    """(B,) the fewest pixels: those with the largest gains of their best corner first."""
    w = model.w.detach().double().reshape(x.shape[1:])
    gain = torch.maximum(w * (1 - x.double()), -w * x.double()).sum(1).flatten(1)
    reached = gain.sort(1, descending=True).values.cumsum(1)
    return torch.where(lead > 0, (reached <= lead[:, None]).sum(1) + 1, 0).double()


def tanh_net(n: int = 8, scale: float = 4.0) -> tuple[nn.Module, Tensor, Tensor]:
    """A small smooth classifier of four classes in double precision, and what it predicts."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    with torch.no_grad():
        model[3].weight *= scale
    x, _, _ = linear_problem(n, dtype=torch.float64)
    return model, x, model(x).argmax(1)


def ask(model: nn.Module, point: np.ndarray, label: int, *, entropy: bool = False) -> tuple[float, np.ndarray, bool]:
    """Margin max_{j≠y} z_j - z_y (or cross-entropy), its gradient, and whether the point is an error."""
    x = torch.tensor(point)[None].requires_grad_(True)
    z = model(x)[0]
    rest = torch.cat([z[:label], z[label + 1 :]])
    value = z.logsumexp(0) - z[label] if entropy else rest.max() - z[label]
    (gradient,) = torch.autograd.grad(value, x)
    return value.item(), gradient[0].numpy(), bool(rest.max() > z[label])
