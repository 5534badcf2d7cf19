"""Losses written out as plainly as can be, beside ours: what a method costs, and what our code adds to it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bare_pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Seven steps in eval mode and the loss, with nothing else."""
    model.eval()
    x_adv = x + 0.03 * (2 * torch.rand_like(x) - 1)
    for _ in range(7):
        x_adv = x_adv.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = inside(x_adv.detach() + 0.01 * g.sign(), x)
    model.train()
    return F.cross_entropy(model(x_adv), y)


def bare_difference(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The squared l2 penalty by finite differences, with nothing else."""
    at = x.detach().requires_grad_(True)
    low = F.cross_entropy(model(at), y, reduction="none")
    (g,) = torch.autograd.grad(low.sum(), at, retain_graph=True)
    moved = x + 0.01 * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    high = F.cross_entropy(model(moved), y, reduction="none")
    return low.mean() + ((high - low) / 0.01).square().mean() / 2


def released_trades(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The passes of the released code: clean predictions anew at every step and twice in the loss, with a graph."""
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x)
    for _ in range(10):
        x_adv = x_adv.detach().requires_grad_(True)
        kl = F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="sum")
        (g,) = torch.autograd.grad(kl, x_adv)
        x_adv = inside(x_adv.detach() + 0.007 * g.sign(), x)
    model.train()
    natural = F.cross_entropy(model(x), y)
    return natural + 6 * F.kl_div(model(x_adv).log_softmax(1), model(x).softmax(1), reduction="batchmean")


def inside(x_adv: Tensor, x: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x_adv, x - 0.031), x + 0.031).clamp(0, 1)


WRITTEN_OUT: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "PGD-7, bare loop": bare_pgd,
    "TRADES-10 as in the released code": released_trades,
    "gradient penalty l2, finite differences, bare": bare_difference,
}
