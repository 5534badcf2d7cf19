"""ODENet, the network without skew fields that SONet is compared with (Huang et al. 2020, Tables 2 and 3)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from verigrad.models.conv_fields import ConvField, normal
from verigrad.models.counts import check_counts
from verigrad.models.fields import tiled
from verigrad.models.ode_block import GridName, ODEBlock, named_solver

GROUPS = 8  # as in the released code (models/misc.py)


class ODENet(nn.Module):
    """Tiled channels, ten ODE blocks at full resolution, GroupNorm, average pooling to 3×3, and a linear layer.

    The field of each block is norm, ReLU, convolution, norm, ReLU, convolution, norm, with time as a channel
    (`ConvField`), solved over [0, 1]. The facts are those of the released code (github.com/yao-lab/SONet,
    models/odenet_tq.py). 759,818 parameters: 75,392 for each block, 128 and 5,770 for the rest.

    Images of any size; below 3×3 the pooling repeats pixels. Its cost is that of C channels at full resolution.

    Args:
        channels: C, a multiple of 8, or below 8.
        blocks: how many ODE blocks.
        classes: K.
        in_channels: channels of the images, repeated until there are C.
        method, tol, control, steps, grid: how the blocks are solved, see `SONet`. Table 2 takes "euler" and "rk4" in
            one step, and "dopri5" at tolerance 0.1, 0.01 and 0.001.
    """

    def __init__(
        self,
        channels: int = 64,
        blocks: int = 10,
        classes: int = 10,
        in_channels: int = 3,
        *,
        method: str = "dopri5",
        tol: float = 0.1,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        check_counts("ODENet", channels=channels, blocks=blocks, classes=classes, in_channels=in_channels)
        super().__init__()
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        self.channels = channels
        self.blocks = nn.Sequential(*(ODEBlock(ConvField(channels, groups=GROUPS), solver) for _ in range(blocks)))
        self.head = nn.Sequential(
            normal(channels, GROUPS), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(9 * channels, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.head(self.blocks(tiled(x, self.channels)))
