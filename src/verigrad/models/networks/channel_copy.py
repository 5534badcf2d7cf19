"""The channel-copy layer of Huang et al. 2020, Eq. (6)."""

from __future__ import annotations

from torch import Tensor, nn

from verigrad.models.fields import tiled


class ChannelCopy(nn.Module):
    """Images (B, c, H, W) to (B, channels, H, W): their channels over and over; what is left over: the first ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return tiled(x, self.channels)
