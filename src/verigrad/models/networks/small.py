"""A small plain convolutional net, for digits and MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from verigrad.models.counts import check_counts


class SmallConvNet(nn.Module):
    """conv 3×3 → ReLU → conv 3×3, stride 2 → ReLU → average pooling to 4×4 → linear 64 → ReLU → linear.

    No batch norm and no dropout: it is the same function in training and in evaluation. 38,282 parameters for one
    channel and ten classes. Images may have any size from 2×2 up. No paper's network: it is for digits and MNIST.

    Args:
        in_channels: channels of the images.
        classes: K.
        channels: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, in_channels: int = 1, classes: int = 10, channels: int = 16) -> None:
        check_counts("SmallConvNet", in_channels=in_channels, classes=classes, channels=channels)
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * channels * 16, 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.layers(x)
