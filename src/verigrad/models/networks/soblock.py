"""SOBlock: residual networks whose first convolution is a stabilised ODE block (Huang et al. 2020, section 5.1)."""

from __future__ import annotations

from typing import Literal

from torch import nn

from verigrad.models.activations import Activation
from verigrad.models.fields import Norm, SkewConvField, Variant
from verigrad.models.networks.residual import BasicBlock, ResidualNet, check_counts, four_stages
from verigrad.models.networks.wide_resnet import STEM_WIDTH, wide_stages, wide_start
from verigrad.models.ode_block import GridName, ODEBlock, named_solver


class SOBlock(ResidualNet):
    """`ResNet10` with its stem replaced by ODEBlock(SkewConvField), and nothing between that block and the first stage.

    The paper replaces the first convolution layer, which it describes together with its batch norm and ReLU; the
    released code leaves out all three, and so does this. The defaults are the released solver (as in `SONet`):
    predictions depend on batch-mates. Weights start as torch starts them. 4,903,382 parameters, or 1,229,046 at 32
    channels. Images of any size.

    Args:
        channels: C of the block and the first stage, below 8 or a multiple of 8; 32 and 64 in the paper.
        classes: K.
        in_channels: channels of the images, below 8 or a multiple of 8.
        gamma, activation, norm, variant: of the block, see `SkewConvField`. variant="paper" is Eq. (3) as printed,
            without norms, and 4,903,114 parameters.
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
        check_counts("SOBlock", classes=classes)
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        field = SkewConvField(in_channels, channels, gamma=gamma, variant=variant, activation=activation, norm=norm)
        super().__init__(
            ODEBlock(field, solver),
            four_stages(BasicBlock, (1, 1, 1, 1), channels),
            nn.Linear(8 * channels, classes),
        )


class WideSOBlock(ResidualNet):
    """The `WideResNet` of the released SONet code with its stem replaced by an ODE block of 16 channels: Table 2.

    46,172,870 parameters at the paper's WRN-34-10. Weights start by `wide_start`, the block's as in `SkewConvField`.
    Images of any size.

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
        check_counts("WideSOBlock", classes=classes)
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)
        field = SkewConvField(in_channels, STEM_WIDTH, gamma=gamma, variant=variant, activation=activation, norm=norm)
        super().__init__(
            ODEBlock(field, solver),
            wide_stages(depth, widen, "released"),
            nn.Linear(64 * widen, classes),
        )
        wide_start(self)
