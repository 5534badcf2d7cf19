"""FractalNet as a numerical scheme: Eq. (19)-(20) of Chu, Wei & Zhao 2020, after Larsson et al. 2016."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.staged import Norm, checked_step, conv, normalisation, staged


class FractalBlock(nn.Module):
    """f_{C+1}(y) = ½ (f_C ∘ f_C)(y) + ½ f_1(y) with f_1 = h · unit, Eq. (19); no path from y is without a unit.

    2^C - 1 units with weights of their own, as in Larsson et al. 2016 (both copies of f_C, too), 2^(C-1) on the longest
    path. Joins are nested as in the equation; the original makes joins that follow one another into one mean, which for
    C ≥ 3 weighs all columns alike (1/3, 1/3, 1/3, where here it is ¼, ¼, ½). For C ≤ 2 they are the same.

    Since y itself is never added, h is no step size: as h → 0 the block goes to 0 and not to y (docs/math/schemes.md).

    Args:
        unit: makes one unit, which keeps the shape of y; called once for each.
        columns: C, at least 1.
        h: in (0, inf).
        drop_path: in [0, 1). In training each join drops each of its two inputs with this probability for the whole
            batch, keeps one of them for certain, and is the mean of what is kept: the local drop-path of Larsson et
            al. (the global one is not built). Drawn from PyTorch's global generator on the processor, as dropout is.
    """

    def __init__(
        self, unit: Callable[[], nn.Module], *, columns: int = 3, h: float = 1.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if columns < 1:
            raise BadInput(f"The 'columns' of FractalBlock must be at least 1. Got {columns}.")
        if not 0 <= drop_path < 1:
            raise BadInput(f"The 'drop_path' of FractalBlock must be a probability in [0, 1). Got {drop_path}.")
        self.h = checked_step("FractalBlock", h)
        self.drop_path = drop_path
        self.short = unit()
        self.long = nn.Sequential(
            *(FractalBlock(unit, columns=columns - 1, h=h, drop_path=drop_path) for _ in range(2 if columns > 1 else 0))
        )

    def forward(self, y: Tensor) -> Tensor:
        if not len(self.long):
            return self.h * self.short(y)
        long, short = self._kept()
        if long and short:
            return (self.long(y) + self.h * self.short(y)) / 2
        return self.long(y) if long else self.h * self.short(y)

    def _kept(self) -> tuple[bool, bool]:
        """Which of the two paths the join keeps."""
        if not self.training or not self.drop_path:
            return True, True
        draws = torch.rand(3).tolist()
        long, short = draws[0] >= self.drop_path, draws[1] >= self.drop_path
        return (long, short) if long or short else (draws[2] < 0.5, draws[2] >= 0.5)


class FractalNet(nn.Module):
    """Three stages of fractal blocks in the frame of `staged.py`; a unit is conv 3×3 → norm → ReLU.

    Images (B, in_channels, H, W) of any size from 4×4 up. 1,452,650 parameters.

    Larsson et al. 2016 have neither the frame's first convolution nor its halvings: five blocks with 2×2 max-pooling
    between them, dropout, and 64 to 512 channels.

    Args:
        channels: w of the first stage; the others have 2w and 4w. Below 8 or a multiple of 8 under norm="group".
        blocks: blocks of each of the three stages.
        classes: K.
        in_channels: channels of the images.
        columns: C of `FractalBlock`.
        h: what every unit is multiplied by, in (0, inf). A norm in the next unit takes it out again.
        norm: "batch" as in the original, "group" (8 groups) or "none".
        drop_path: probability of the local drop-path in training, in [0, 1).
    """

    def __init__(
        self,
        channels: int = 32,
        blocks: tuple[int, ...] = (1, 1, 1),
        classes: int = 10,
        in_channels: int = 3,
        *,
        columns: int = 3,
        h: float = 1.0,
        norm: Norm = "batch",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()

        def stage(wide: int, count: int) -> nn.Module:
            def unit() -> nn.Module:
                return nn.Sequential(conv(wide, wide, norm), normalisation(norm, wide), nn.ReLU())

            return nn.Sequential(*(FractalBlock(unit, columns=columns, h=h, drop_path=drop_path) for _ in range(count)))

        self.layers = staged(
            "FractalNet", stage, channels=channels, blocks=blocks, classes=classes, in_channels=in_channels, norm=norm
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.layers(x)
