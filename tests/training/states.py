"""What a trainer lends to an algorithm, as plainly as can be."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn


class Lent:
    """A `State` over SGD with momentum. `gradients` keeps what each update was made of, `log` what was called."""

    def __init__(self, module: nn.Module, *, model: nn.Module | None = None, lr: float = 0.1, momentum: float = 0.9):
        self.module = module.train()
        self.model = module if model is None else model.train()
        self.optimiser: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum)
        self.lr = lr
        self.memory: dict[str, Tensor] = {}
        self.step = 0
        self.steps = 10
        self.gradients: list[Tensor] = []

    def update(self) -> None:
        pairs = [(weight, weight.grad) for weight in self.module.parameters()]
        self.gradients.append(torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in pairs]))
        self.optimiser.step()
        self.optimiser.zero_grad()

    def alone(self):
        return self.model.no_sync() if hasattr(self.model, "no_sync") else nullcontext()

    def precision(self):
        return nullcontext()


def flat(module: nn.Module) -> Tensor:
    """All weights and buffers in one vector."""
    return torch.cat([tensor.detach().double().flatten() for tensor in module.state_dict().values()])
