"""PolyNet as a numerical scheme: Eq. (15)-(18) of Chu, Wei & Zhao 2020, after Zhang et al. 2017."""

from __future__ import annotations

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.staged import Norm, checked_step, residual_function, staged


class PolyBlock(nn.Module):
    """(I + hF + (hF)² + … + (hF)^p) y, one F for all powers: Eq. (18) cut after power p, and (15) for p = 2, h = 1.

    A power is a composition: (hF)² y = hF(hF(y)). Only for a linear F is this the beginning of backward Euler's
    (I - hF)⁻¹ y, with an error of h^(p+1); docs/math/schemes.md says what is left of it for another F.

    Args:
        function: F, keeps the shape of y.
        order: p, at least 1; 1 is the residual block y + hF(y).
        h: the step size, in (0, inf).
    """

    def __init__(self, function: nn.Module, *, order: int = 2, h: float = 1.0) -> None:
        super().__init__()
        if order < 1:
            raise BadInput(f"The 'order' of PolyBlock must be at least 1, which is a residual block. Got {order}.")
        self.function = function
        self.order = order
        self.h = checked_step("PolyBlock", h)

    def forward(self, y: Tensor) -> Tensor:
        power = total = y
        for _ in range(self.order):
            power = self.h * self.function(power)
            total = total + power
        return total


class PolyNet(nn.Module):
    """Three stages of poly-2 blocks in the frame of `staged.py`.

    Images (B, in_channels, H, W) of any size from 4×4 up. 870,698 parameters; F is shared, so the order costs none.

    In Zhang et al. 2017 F is an Inception unit, blocks of several kinds are mixed, and the network is far larger; here
    F is the pre-activation branch of a residual block. norm="batch" is refused above order 1: each norm of the one F
    would normalise y and hF(y) by their own batches in training, and both by one running average of the two in
    evaluation, which is another function (on digits 98 and 97 % in training mode, 47 and 48 % in evaluation, two
    seeds).

    Args:
        channels: w of the first stage; the others have 2w and 4w. Below 8 or a multiple of 8 under norm="group".
        blocks: blocks of each of the three stages.
        classes: K.
        in_channels: channels of the images.
        order: p of `PolyBlock`.
        h: the step size of every block, in (0, inf).
        norm: "group" (8 groups), "none", or for order 1 also "batch".
    """

    def __init__(
        self,
        channels: int = 32,
        blocks: tuple[int, ...] = (2, 2, 2),
        classes: int = 10,
        in_channels: int = 3,
        *,
        order: int = 2,
        h: float = 1.0,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        if norm == "batch" and order > 1:
            raise BadInput(
                f"PolyNet of order {order} with norm='batch' would evaluate all powers of F with one running average, "
                "which fits none of them. Use norm='group'."
            )

        def stage(wide: int, count: int) -> nn.Module:
            return nn.Sequential(*(PolyBlock(residual_function(wide, norm), order=order, h=h) for _ in range(count)))

        self.layers = staged(
            "PolyNet", stage, channels=channels, blocks=blocks, classes=classes, in_channels=in_channels, norm=norm
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.layers(x)
