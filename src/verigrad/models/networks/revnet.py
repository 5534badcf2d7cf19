"""RevNet as a numerical scheme: Eq. (21)-(22) of Chu, Wei & Zhao 2020, after Gomez et al. 2017."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.staged import Norm, checked_step, residual_function, staged


class ReversibleBlock(nn.Module):
    """X' = X + h f₁(Y), Y' = Y + h f₂(X') on the first and second half of the channels, Eq. (21) for h = 1.

    f₂ sees X' and not X: the semi-implicit (symplectic) Euler method for X' = f₁(Y), Y' = f₂(X), Eq. (22), and not the
    explicit one. The inverse is X, Y in terms of X', Y' by subtraction, so it is exact but for rounding.

    Args:
        f1, f2: keep the shape of a half.
        h: the step size, in (0, inf).
    """

    def __init__(self, f1: nn.Module, f2: nn.Module, *, h: float = 1.0) -> None:
        super().__init__()
        self.f1 = f1
        self.f2 = f2
        self.h = checked_step("ReversibleBlock", h)

    def forward(self, y: Tensor) -> Tensor:
        first, second = y.chunk(2, 1)
        first = first + self.h * self.f1(second)
        second = second + self.h * self.f2(first)
        return torch.cat([first, second], 1)

    def inverse(self, y: Tensor) -> Tensor:
        """The input whose output is y. Batch norm in training mode counts this as a further batch."""
        first, second = y.chunk(2, 1)
        second = second - self.h * self.f2(first)
        first = first - self.h * self.f1(second)
        return torch.cat([first, second], 1)

    def pulled_back(self, y: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """From an output and its gradient to the input, its gradient, and those of `parameters()` (None where frozen).

        Algorithm 1 of Gomez et al. 2017: each of f₁ and f₂ is evaluated once.
        """
        first, second = y.chunk(2, 1)
        d_first, d_second = gradient.chunk(2, 1)
        second, pulled, d_f2 = self._undone(self.f2, first, second, d_second)
        d_first = d_first + pulled
        first, pulled, d_f1 = self._undone(self.f1, second, first, d_first)
        d_second = d_second + pulled
        # f1 and f2 were registered in this order, which is that of parameters().
        return torch.cat([first, second], 1), torch.cat([d_first, d_second], 1), [*d_f1, *d_f2]

    def _undone(
        self, f: nn.Module, at: Tensor, moved: Tensor, gradient: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """`moved` less h f(at), and the gradients of h f(at) for `at` and f's parameters."""
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            change = self.h * f(at)
            weights = list(f.parameters())
            asked = [weight for weight in weights if weight.requires_grad]
            pulled, *found = torch.autograd.grad(change, [at, *asked], gradient)
        ready = iter(found)
        return moved - change.detach(), pulled, [next(ready) if weight.requires_grad else None for weight in weights]


class _Reconstructed(torch.autograd.Function):
    """A chain of reversible blocks that keeps its output alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, blocks: list[ReversibleBlock], *weights: Tensor) -> Tensor:
        for block in blocks:
            y = block(y)
        ctx.blocks = blocks
        ctx.save_for_backward(y, *weights)  # the weights only so that a change of them in place is found out
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise BadInput(
                "RevNet with reconstruct=True has no second derivatives (create_graph=True). Use reconstruct=False."
            )
        y = ctx.saved_tensors[0]
        (gradient,) = gradients
        found: list[Tensor | None] = []
        for block in reversed(ctx.blocks):
            y, gradient, of_weights = block.pulled_back(y, gradient)
            found = [*of_weights, *found]
        return gradient, None, *found


class ReversibleStage(nn.Module):
    """A chain of reversible blocks on one shape.

    Args:
        blocks: applied in this order.
        reconstruct: keep the output alone, and compute the inputs of the blocks again from it in the backward pass
            (Gomez et al. 2017). The gradient is the same but for rounding; memory does not grow with the blocks; the
            functions are evaluated twice. No second derivatives.
    """

    def __init__(self, blocks: list[ReversibleBlock], *, reconstruct: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.reconstruct = reconstruct

    def forward(self, y: Tensor) -> Tensor:
        blocks: list[Any] = list(self.blocks)
        if self.reconstruct and torch.is_grad_enabled():
            weights = [weight for block in blocks for weight in block.parameters()]
            result = _Reconstructed.apply(y, blocks, *weights)
            assert isinstance(result, Tensor)
            return result
        for block in blocks:
            y = block(y)
        return y

    def inverse(self, y: Tensor) -> Tensor:
        """The input whose output is y."""
        blocks: list[Any] = list(self.blocks)
        for block in reversed(blocks):
            y = block.inverse(y)
        return y


class RevNet(nn.Module):
    """Three stages of reversible blocks in the frame of `staged.py`; the halvings between them are not reversible.

    Images (B, in_channels, H, W) of any size from 4×4 up. 483,626 parameters.

    Gomez et al. 2017 use batch norm and halve inside a residual block with an average-pooled skip. Here group norm is
    the default: a batch norm would count each batch twice under `reconstruct`, and the two together are refused.

    Args:
        channels: w of the first stage, even; the others have 2w and 4w. Half of it must be below 8 or a multiple
            of 8 under norm="group".
        blocks: blocks of each of the three stages.
        classes: K.
        in_channels: channels of the images.
        h: the step size of every block, in (0, inf).
        norm: "group" (8 groups), "batch" or "none".
        reconstruct: of `ReversibleStage`; not with norm="batch".
    """

    def __init__(
        self,
        channels: int = 32,
        blocks: tuple[int, ...] = (2, 2, 2),
        classes: int = 10,
        in_channels: int = 3,
        *,
        h: float = 1.0,
        norm: Norm = "group",
        reconstruct: bool = False,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise BadInput(f"The 'channels' of RevNet must be even, one half for each stream. Got {channels}.")
        if reconstruct and norm == "batch":
            raise BadInput(
                "RevNet with reconstruct=True and norm='batch' would count every batch twice in its running averages. "
                "Use norm='group'."
            )

        def stage(wide: int, count: int) -> nn.Module:
            def function() -> nn.Module:
                return residual_function(wide // 2, norm)

            return ReversibleStage(
                [ReversibleBlock(function(), function(), h=h) for _ in range(count)], reconstruct=reconstruct
            )

        self.layers = staged(
            "RevNet", stage, channels=channels, blocks=blocks, classes=classes, in_channels=in_channels, norm=norm
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.layers(x)
