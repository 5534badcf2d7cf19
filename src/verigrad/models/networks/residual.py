"""What residual networks are made of: the frame, the two blocks of He et al. 2015 (1512.03385), and their start."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from verigrad.models.networks.antisymmetric import AntisymmetricConv2d


class ResidualNet(nn.Module):
    """stem, stages, the mean over all pixels, classifier: (B, in_channels, H, W) to logits (B, classes)."""

    def __init__(self, stem: nn.Module, stages: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.stages(self.stem(x)).mean((2, 3)))


class Residual(nn.Module):
    """relu(shortcut(x) + F(x)), where F is `branch`."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.branch(x)).relu()


class BasicBlock(Residual):
    """F(x) = bn(conv 3×3(relu(bn(conv 3×3(x, stride))))); the shortcut is `projection`.

    gamma: None, or the γ of an `AntisymmetricConv2d` in place of each convolution that keeps the shape.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, *, gamma: float | None = None) -> None:
        super().__init__(
            basic_branch(in_channels, channels, stride, gamma=gamma), projection(in_channels, channels, stride)
        )


class Bottleneck(Residual):
    """1×1 to `channels`, 3×3 with the stride, 1×1 to 4 · `channels`; batch norm after each, ReLU between them."""

    EXPANSION = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        out = self.EXPANSION * channels
        branch = nn.Sequential(
            *normed(conv(in_channels, channels, 1), channels),
            nn.ReLU(),
            *normed(conv(channels, channels, 3, stride), channels),
            nn.ReLU(),
            *normed(conv(channels, out, 1), out),
        )
        super().__init__(branch, projection(in_channels, out, stride))


def conv(in_channels: int, channels: int, size: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A convolution of odd size, padded so that stride 1 keeps the image's size."""
    return nn.Conv2d(in_channels, channels, size, stride=stride, padding=size // 2, bias=bias)


def normed(layer: nn.Module, channels: int) -> nn.Sequential:
    """A layer, then batch norm."""
    return nn.Sequential(layer, nn.BatchNorm2d(channels))


def basic_branch(in_channels: int, channels: int, stride: int, *, gamma: float | None = None) -> nn.Sequential:
    """The F of `BasicBlock`."""

    def layer(before: int, step: int) -> nn.Module:
        if gamma is not None and step == 1 and before == channels:
            return AntisymmetricConv2d(channels, gamma=gamma)
        return conv(before, channels, 3, step)

    return nn.Sequential(
        *normed(layer(in_channels, stride), channels), nn.ReLU(), *normed(layer(channels, 1), channels)
    )


def projection(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The identity where the shape stays, else a 1×1 convolution and batch norm (option B of He et al.)."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return normed(conv(in_channels, channels, 1, stride), channels)


def stages(
    block: Callable[[int, int, int], nn.Module],
    blocks: tuple[int, ...],
    widths: tuple[int, ...],
    strides: tuple[int, ...],
    in_channels: int,
    expansion: int = 1,
) -> nn.Sequential:
    """One Sequential of blocks for each stage; the first block of a stage has its stride and changes the channels.

    Args:
        block: makes a block of (in_channels, width, stride) that gives `expansion` · width channels.
        blocks, widths, strides: one number for each stage.
        in_channels: what the stem hands on.
    """
    made: list[nn.Module] = []
    for count, width, stride in zip(blocks, widths, strides, strict=True):
        layers: list[nn.Module] = []
        for index in range(count):
            layers.append(block(in_channels, width, stride if index == 0 else 1))
            in_channels = width * expansion
        made.append(nn.Sequential(*layers))
    return nn.Sequential(*made)


def four_stages(
    block: Callable[[int, int, int], nn.Module], blocks: tuple[int, ...], channels: int, expansion: int = 1
) -> nn.Sequential:
    """Stages of C, 2C, 4C, 8C channels with strides 1, 2, 2, 2, after a stem of C channels."""
    widths = tuple(channels * 2**stage for stage in range(4))
    return stages(block, blocks, widths, (1, 2, 2, 2), channels, expansion)


def he_fan_out(model: nn.Module) -> None:
    """Kernels drawn from N(0, 2 / (k² · out_channels)): He et al. 2015, 1502.01852, Eq. (14). The rest stays."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d | AntisymmetricConv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
