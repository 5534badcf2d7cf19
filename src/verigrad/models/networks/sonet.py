"""SONet, the stabilised neural ODE network (Huang et al. 2020, section 4 and the released code)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.activations import Activation
from verigrad.models.counts import check_counts
from verigrad.models.fields import Norm, SkewConvField, SkewLinearField, Variant
from verigrad.models.networks.channel_copy import ChannelCopy
from verigrad.models.ode_block import GridName, ODEBlock, named_solver

STRIDES = (1, 2, 2, 2)


class SONet(nn.Module):
    """Every layer is an ODE block: a stem, four stages of C, 2C, 4C and 8C channels, and after pooling the classifier.

    The defaults are those of the released code, which differ from the paper (`fields.py`): dopri5 at tolerance 0.1 with
    one step size for the whole batch, differentiated through the choice of that step. So predictions depend on
    batch-mates. 5,944,022 parameters, or 1,491,318 at 32 channels; 2,802,902 and 704,118 with one block in each stage.

    variant="paper" takes what the paper prints in place of that: Eq. (3) without norms, and before the stem the
    channel-copy layer of Eq. (6), so that the stem has as many channels in as out. In the released code the stem takes
    the image itself, and repeats the channels in its start. The paper has one block in each stage, blocks=(1, 1, 1, 1):
    2,831,360 parameters, or 709,120 at 32 channels; with two, 5,964,800 and 1,492,480. It asks for as many channels in
    as out of every feature block and does not say where they double: here stages two to four do it, as in the released
    code.

    Stages two to four halve the image. Its sides must be multiples of 8: digits of 8×8 go 8 → 8 → 4 → 2 → 1, and the
    average pooling then has a single pixel.

    Args:
        channels: C, below 8 or a multiple of 8 where there are norms.
        blocks: ODE blocks in each of the four stages.
        classes: K.
        in_channels: channels of the images.
        gamma: the damping γ of every block.
        activation: σ of every block, one of `ACTIVATIONS`.
        norm: "group" or "none" in the feature blocks; "variant" leaves it to the variant.
        variant: "released" or "paper", see above and `fields.py`.
        method: "dopri5", "tsit5", "bosh3" or "heun2" (adaptive), "euler", "midpoint", "rk4" (3/8), "backward_euler"
            or "implicit_midpoint" (equal steps).
        tol: relative and absolute tolerance of the adaptive methods.
        control: "batch" for one step size for all, "sample" for own steps.
        steps: equal steps over [0, 1] for the methods without an error estimate; 1 in the paper.
        grid: what of the time grid is differentiated: "all", "first" or "frozen".
    """

    def __init__(
        self,
        channels: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
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
        check_counts("SONet", channels=channels, classes=classes, in_channels=in_channels)
        super().__init__()
        if len(blocks) != len(STRIDES) or min(blocks) < 1:
            raise BadInput(f"The 'blocks' of SONet must be four numbers of at least 1. Got {tuple(blocks)}.")
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid)

        def feature(inside: int, outside: int, stride: int) -> ODEBlock:
            field = SkewConvField(
                inside, outside, stride=stride, gamma=gamma, variant=variant, activation=activation, norm=norm
            )
            return ODEBlock(field, solver)

        self.copy = ChannelCopy(channels) if variant == "paper" else nn.Identity()
        self.stem = feature(channels if variant == "paper" else in_channels, channels, 1)
        width = channels
        stages: list[nn.Module] = []
        for stage, (count, stride) in enumerate(zip(blocks, STRIDES, strict=True)):
            layers: list[nn.Module] = []
            for block in range(count):
                out = channels * 2**stage
                layers.append(feature(width, out, stride if block == 0 else 1))
                width = out
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        field = SkewLinearField(width, classes, gamma=gamma, variant=variant, activation=activation)
        self.classifier = ODEBlock(field, solver)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        return self.classifier(self.stages(self.stem(self.copy(x))).mean((2, 3)))
