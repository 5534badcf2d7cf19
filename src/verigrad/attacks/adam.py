"""Adam (Kingma & Ba 2015, Algorithm 1) with a time of its own for each sample, as attacks need that restart samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BETA_1, BETA_2 = 0.9, 0.999


class Adam(NamedTuple):
    """Both running means (R, C, H, W) and how many gradients (R,) went into them."""

    first: Tensor
    second: Tensor
    time: Tensor

    @staticmethod
    def start(x: Tensor) -> Adam:
        zero = torch.zeros_like(x)
        return Adam(zero, zero.clone(), torch.zeros(len(x), dtype=torch.int64, device=x.device))

    def only(self, which: Tensor) -> Adam:
        return Adam(*(part[which] for part in self))

    def restarted(self, which: Tensor) -> Adam:
        """Those in which (R,) forget all gradients."""
        images = which.reshape(-1, 1, 1, 1)
        return Adam(
            self.first.masked_fill(images, 0), self.second.masked_fill(images, 0), self.time.masked_fill(which, 0)
        )

    def seen(self, gradient: Tensor) -> Adam:
        """After one more gradient (R, C, H, W). Writes into its own means: a step is to cost less than its look."""
        self.first.mul_(BETA_1).add_(gradient, alpha=1 - BETA_1)
        self.second.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        return self._replace(time=self.time + 1)

    def direction(self, epsilon: float = 1e-8) -> Tensor:
        """m̂ / (√v̂ + ε), what the step size is multiplied with; it points up if gradients did."""
        t = self.time.reshape(-1, 1, 1, 1).to(self.first.dtype)
        return (self.first / (1 - BETA_1**t)).div_((self.second / (1 - BETA_2**t)).sqrt_().add_(epsilon))
