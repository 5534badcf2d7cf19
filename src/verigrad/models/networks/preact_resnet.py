"""Residual networks with norm and ReLU before each convolution (He et al. 2016, 1603.05027)."""

from __future__ import annotations

from torch import Tensor, nn

from verigrad.models.counts import check_counts
from verigrad.models.networks.residual import ResidualNet, conv, four_stages


class PreActBlock(nn.Module):
    """a + conv 3×3(relu(bn(conv 3×3(b, stride)))), where b = relu(bn(x)), no bias and no norm after the last one.

    a is x where the shape stays, else a 1×1 convolution of b.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.branch = nn.Sequential(
            conv(in_channels, channels, 3, stride), nn.BatchNorm2d(channels), nn.ReLU(), conv(channels, channels, 3)
        )
        same = stride == 1 and in_channels == channels
        self.projection = None if same else conv(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        before = self.before(x)
        shortcut = x if self.projection is None else self.projection(before)
        return shortcut + self.branch(before)


class PreActResNet18(ResidualNet):
    """18 layers: a 3×3 stem, eight `PreActBlock`s in stages of C, 2C, 4C, 8C channels, average pooling, linear.

    The default is the network of the released YOPO code (Zhang et al. 2019). It pools the last sum as it is, without
    the norm and ReLU that He et al. put there. It stands for the PreAct-Res18 of the natural-robustness paper (Chu et
    al. 2020, Table 2), which that paper does not describe further. 11,171,146 parameters, with `final_norm` 11,172,170.
    Weights start as torch starts them, as in that code. Images of any size.

    Args:
        channels: C.
        classes: K.
        in_channels: channels of the images.
        final_norm: whether batch norm and ReLU follow the last block (He et al. 2016), or not (YOPO).
    """

    def __init__(
        self, channels: int = 64, classes: int = 10, in_channels: int = 3, *, final_norm: bool = False
    ) -> None:
        check_counts("PreActResNet18", channels=channels, classes=classes, in_channels=in_channels)
        trunk = four_stages(PreActBlock, (2, 2, 2, 2), channels)
        if final_norm:
            trunk.extend([nn.BatchNorm2d(8 * channels), nn.ReLU()])
        super().__init__(conv(in_channels, channels, 3), trunk, nn.Linear(8 * channels, classes))
