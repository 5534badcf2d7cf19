"""SOBlock: residual networks whose first convolution is a stabilised ODE block (Huang et al. 2020, section 5.1)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from verigrad.models.activations import Activation
from verigrad.models.counts import check_counts
from verigrad.models.fields import Norm, SkewConvField, Variant
from verigrad.models.networks.channel_copy import ChannelCopy
from verigrad.models.networks.residual import BasicBlock, ResidualNet, four_stages
from verigrad.models.networks.wide_resnet import STEM_WIDTH, wide_stages, wide_start
from verigrad.models.ode_block import GridName, ODEBlock, named_solver


class SOBlock(ResidualNet):
    """`ResNet10` with its first convolution replaced by ODEBlock(SkewConvField).

    In the released code that block takes the image itself, and there is neither batch norm nor ReLU between it and the
    first stage: 4,903,382 parameters, or 1,229,046 at 32 channels. variant="paper" is the paper's text: Eq. (3) without
    norms, as many channels in as out, so that the image's channels are copied before it, and "the other parts
    unchanged", so that batch norm and ReLU stay: 4,938,378 parameters, or 1,237,322 at 32 channels.

    The defaults are the released solver (as in `SONet`): predictions depend on batch-mates. Weights start as torch
    starts them. Images of any size.

    Args:
        channels: C of the block and the first stage, below 8 or a multiple of 8; 32 and 64 in the paper.
        classes: K.
        in_channels: channels of the images, below 8 or a multiple of 8.
        gamma, activation, norm, variant: of the block, see `SkewConvField` and above.
        method: "dopri5", "tsit5", "bosh3" or "heun2" (adaptive), "euler", "midpoint" or "rk4" (3/8; equal steps).
        tol: relative and absolute tolerance of the adaptive methods.
        control: "batch" for one step size for all, "sample" for own steps.
        steps: equal steps over [0, 1] for the methods without an error estimate; 1 in the paper.
        grid: what of the time grid is differentiated: "all", "first" or "frozen".
    """

    def __init__(
        self,
        channels: int = 64,
        classes: int = 10,
        in_channels: int = 3,
        *,
        gamma: float = 0.0,
        activation: Activation = "leaky_relu",
        norm: Norm = "variant",
        variant: Variant = "released",
        method: str = "dopri5",
        tol: float = 0.1,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        check_counts("SOBlock", channels=channels, classes=classes, in_channels=in_channels)
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        inside = channels if variant == "paper" else in_channels
        field = SkewConvField(inside, channels, gamma=gamma, variant=variant, activation=activation, norm=norm)
        block = ODEBlock(field, solver)
        super().__init__(
            nn.Sequential(ChannelCopy(channels), block, nn.BatchNorm2d(channels), nn.ReLU())
            if variant == "paper"
            else block,
            four_stages(BasicBlock, (1, 1, 1, 1), channels),
            nn.Linear(8 * channels, classes),
        )


class WideSOBlock(ResidualNet):
    """The `WideResNet` of the released SONet code with its stem replaced by an ODE block of 16 channels: Table 2.

    46,172,870 parameters at the paper's WRN-34-10. variant="paper" copies the image's channels before the block, as in
    `SOBlock` (46,174,666 parameters); the residual blocks begin with a norm of their own. Weights start by
    `wide_start`, the block's as in `SkewConvField`. Images of any size.

    Args:
        depth: 6n + 4.
        widen: how many times wider than 16, 32, 64 channels.
        classes: K.
        in_channels: channels of the images, below 8 or a multiple of 8.
        gamma, activation, norm, variant, method, tol, control, steps, grid: as in `SOBlock`.
    """

    def __init__(
        self,
        depth: int = 34,
        widen: int = 10,
        classes: int = 10,
        in_channels: int = 3,
        *,
        gamma: float = 0.0,
        activation: Activation = "leaky_relu",
        norm: Norm = "variant",
        variant: Variant = "released",
        method: str = "dopri5",
        tol: float = 0.1,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        check_counts("WideSOBlock", classes=classes, in_channels=in_channels)
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        inside = STEM_WIDTH if variant == "paper" else in_channels
        field = SkewConvField(inside, STEM_WIDTH, gamma=gamma, variant=variant, activation=activation, norm=norm)
        block = ODEBlock(field, solver)
        super().__init__(
            nn.Sequential(ChannelCopy(STEM_WIDTH), block) if variant == "paper" else block,
            wide_stages(depth, widen, "released"),
            nn.Linear(64 * widen, classes),
        )
        wide_start(self)
