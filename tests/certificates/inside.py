"""An attack with a radius of its own for each image: the test of a certificate."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def broken_inside(model: nn.Module, x: Tensor, y: Tensor, radius: Tensor, norm: str, *, steps: int = 30) -> Tensor:
    """(N,) whether ascent on the margin finds an error no farther than `radius`, from two random starts."""
    eps = radius.to(x).reshape(-1, 1, 1, 1)
    broken = torch.zeros_like(y, dtype=torch.bool)
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        x_adv = _project(x + eps * _unit(torch.randn(x.shape, generator=draw).to(x), norm), x, eps, norm)
        for _ in range(steps):
            x_adv.requires_grad_()
            logits = model(x_adv)
            broken |= logits.detach().argmax(1) != y
            own = logits.gather(1, y[:, None])
            others = logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True)
            (gradient,) = torch.autograd.grad((others - own).sum(), x_adv)
            x_adv = _project((x_adv + 0.2 * eps * _unit(gradient, norm)).detach(), x, eps, norm)
        broken |= model(x_adv).detach().argmax(1) != y
    return broken


def _unit(direction: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return direction.sign()
    return direction / direction.flatten(1).norm(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)


def _project(x_adv: Tensor, x: Tensor, eps: Tensor, norm: str) -> Tensor:
    move = x_adv - x
    if norm == "linf":
        move = move.clamp(-eps, eps)
    else:
        length = move.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1).clamp(min=1e-30)
        move = move * (eps / length).clamp(max=1.0)
    return (x + move).clamp(0, 1)
