"""Two small classifiers that are Eq. (3) of Huang et al. 2020 itself, so that it can be trained and attacked alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.activations import Activation
from verigrad.models.counts import check_counts
from verigrad.models.fields import Norm, SkewConvField, SkewLinearField, Variant
from verigrad.models.ode_block import GridName, ODEBlock, named_solver


class SkewConvNet(nn.Module):
    """Skew ODE blocks, average pooling to 4×4, and a linear layer.

    By default one block from the images to 64 channels at their own resolution: 11,978 parameters (1,728 of the block).
    A block of stride 2 halves the image and doubles the channels, as in SONet. Images of any size from 1×1 up, with
    sides that can be halved as often.

    Args:
        channels: C of the first block; with norms, below 8 or a multiple of 8.
        strides: 1 or 2 for each block.
        classes: K.
        in_channels: channels of the images.
        gamma, activation, norm, variant: of every block, see `SkewConvField`. The default is Eq. (3) as printed.
        method, tol, control, steps, grid: how the blocks are solved, see `SONet`.
    """

    def __init__(
        self,
        channels: int = 64,
        strides: tuple[int, ...] = (1,),
        classes: int = 10,
        in_channels: int = 3,
        *,
        gamma: float = 0.0,
        activation: Activation = "leaky_relu",
        norm: Norm = "variant",
        variant: Variant = "paper",
        method: str = "dopri5",
        tol: float = 0.1,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        check_counts("SkewConvNet", channels=channels, classes=classes, in_channels=in_channels)
        super().__init__()
        if not strides:
            raise BadInput("The 'strides' of SkewConvNet must be 1 or 2 for each block, at least one. Got none.")
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        blocks: list[nn.Module] = []
        width = in_channels
        for index, stride in enumerate(strides):
            out = channels if index == 0 else width * stride
            field = SkewConvField(
                width, out, stride=stride, gamma=gamma, variant=variant, activation=activation, norm=norm
            )
            blocks.append(ODEBlock(field, solver))
            width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.head(self.blocks(x))


class SkewLinearNet(nn.Module):
    """Fully connected Eq. (3): y(0) = the flattened image, z(0) = 1, logits z(1).

    With `hidden` widths there is one such block for each, from the image to z(1) and on to the next, and the last one
    gives the logits. 7,840 parameters for 28×28×1 without a hidden block.

    As printed, σ stands around the whole derivative, so under LeakyReLU no logit can fall by more than a hundredth of
    what it could rise, and the net learns badly; tanh has no such lean, and neither has the released variant.

    Args:
        hidden: widths of the hidden blocks; () for none.
        classes: K.
        in_channels, size: of the images, (B, in_channels, size, size).
        gamma, activation, variant: of every block, see `SkewLinearField`. The default is Eq. (3) as printed.
        method, tol, control, steps, grid: how the blocks are solved, see `SONet`.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (),
        classes: int = 10,
        in_channels: int = 1,
        size: int = 28,
        *,
        gamma: float = 0.0,
        activation: Activation = "leaky_relu",
        variant: Variant = "paper",
        method: str = "dopri5",
        tol: float = 0.1,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        check_counts("SkewLinearNet", classes=classes, in_channels=in_channels, size=size)
        super().__init__()
        widths = (in_channels * size * size, *hidden, classes)
        if min(widths) < 1:
            raise BadInput(f"The widths of SkewLinearNet (image, hidden, classes) must be at least 1. Got {widths}.")
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        self.shape = (in_channels, size, size)
        self.blocks = nn.Sequential(
            *(
                ODEBlock(SkewLinearField(a, b, gamma=gamma, variant=variant, activation=activation), solver)
                for a, b in pairwise(widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, size, size)."""
        if tuple(x.shape[1:]) != self.shape:
            raise BadInput(
                f"This SkewLinearNet takes images of {self.shape} (channels, height, width). Got {tuple(x.shape[1:])}; "
                "set its 'in_channels' and 'size' to those."
            )
        return self.blocks(x.flatten(1))
