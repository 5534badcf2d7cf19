"""Right-hand sides of the stabilised neural ODE network (SONet), Huang et al. 2020, arXiv 2009.13145.

A field says three things: the state that an input starts from, its derivative, and what of the end state is handed on.
`variant="released"` follows the published code (github.com/yao-lab/SONet, models/misc.py), `variant="paper"` the paper.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput

Variant = Literal["released", "paper"]
State = Tensor | tuple[Tensor, ...]

LEAK = 0.01  # the slope of nn.LeakyReLU where nothing is said


class Field(nn.Module):
    """An initial value problem with weights: y(0) = initial(input), y' = forward(t, y), output = output(y(1))."""

    @abstractmethod
    def initial(self, x: Tensor) -> State:
        """The state at the start, batch first."""

    @abstractmethod
    def output(self, state: State) -> Tensor:
        """What the next layer sees of the state at the end."""


def _check_variant(name: str, variant: str) -> None:
    if variant not in ("released", "paper"):
        raise BadInput(f"The 'variant' of {name} must be 'released' or 'paper'. Got {variant!r}.")


class SkewConvField(Field):
    """The feature block, Eq. (3) of the paper with W⁽²⁾ = W, W⁽¹⁾ = -Wᵀ, autonomous.

        x' = N( σ( W∗N(z) - γ N(x) ) ),   z' = N( σ( -Wᵀ∗N(x) - γ N(z) ) )

    σ is LeakyReLU of slope 0.01, W one kernel for both directions (3×3, or 4×4 with stride 2; padding 1, no bias), and
    N is GroupNorm with min(8, channels) groups, four of them with weights of their own. The paper has no N: there each
    is the identity. x is (B, out_channels, H/stride, W/stride), z is (B, in_channels, H, W).

    The start is z = input, and x = the input with its channels repeated (what is left over: the first ones) and, at
    stride 2, halved by taking every second pixel. Only x is handed on.

    Args:
        in_channels, out_channels: from 1 up; a multiple of 8, or below 8, for GroupNorm.
        stride: 1 or 2. At 2, height and width must be even (for 8×8: 8 → 4 → 2 → 1, and no further).
        gamma: the damping γ, 0 in the released code.
        variant: "released" with N, "paper" without.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        gamma: float = 0.0,
        variant: Variant = "released",
    ) -> None:
        super().__init__()
        _check_variant("SkewConvField", variant)
        if stride not in (1, 2):
            raise BadInput(f"The 'stride' of SkewConvField must be 1 or 2. Got {stride!r}.")
        for channels in (in_channels, out_channels):
            if channels < 1 or channels % min(8, channels):
                raise BadInput(
                    f"The channels of SkewConvField must be below 8 or a multiple of 8 (8 groups). Got {channels}."
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.gamma = gamma
        size = 3 if stride == 1 else 4
        self.kernel = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        nn.init.kaiming_uniform_(self.kernel, a=math.sqrt(5))

        def norm(channels: int) -> nn.Module:
            return nn.GroupNorm(min(8, channels), channels) if variant == "released" else nn.Identity()

        self.norm_x, self.norm_z = norm(out_channels), norm(in_channels)
        self.norm_dx, self.norm_dz = norm(out_channels), norm(in_channels)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        del t  # autonomous
        x, z = self.norm_x(state[0]), self.norm_z(state[1])
        dx = F.conv2d(z, self.kernel, stride=self.stride, padding=1)
        dz = -F.conv_transpose2d(x, self.kernel, stride=self.stride, padding=1)
        if self.gamma:
            dx, dz = dx - self.gamma * x, dz - self.gamma * z
        return self.norm_dx(F.leaky_relu(dx, LEAK)), self.norm_dz(F.leaky_relu(dz, LEAK))

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise BadInput(
                f"A SONet block of stride 2 needs an even height and width. Got {height}×{width} from images too small "
                "for its three halvings; use images whose sides are multiples of 8."
            )
        reduced = x[:, :, :: self.stride, :: self.stride]
        copies = -(-self.out_channels // self.in_channels)
        return reduced.repeat(1, copies, 1, 1)[:, : self.out_channels], x

    def output(self, state: State) -> Tensor:
        return state[0]


class SkewLinearField(Field):
    """The classifier block: features y (B, F) and classes z (B, K), kept as one tensor (B, F + K).

        y' = W σ(z) + b₁ - γ y,   z' = -Wᵀ σ(y) + b₂ - γ z,   z(0) = 0.1, or 1 in the paper;   logits = z(1)

    The released code solves for one joined tensor, so an adaptive solver takes the root mean square of its error over
    features and classes together, where for a feature block it takes the larger of two.

    Args:
        features, classes: F and K.
        gamma: the damping γ, outside of σ in this block; 0 in the released code.
        variant: which z(0).
    """

    def __init__(self, features: int, classes: int, *, gamma: float = 0.0, variant: Variant = "released") -> None:
        super().__init__()
        _check_variant("SkewLinearField", variant)
        self.features = features
        self.classes = classes
        self.gamma = gamma
        self.start = 0.1 if variant == "released" else 1.0
        self.weight = nn.Parameter(torch.empty(features, classes))
        self.bias = nn.Parameter(torch.empty(features + classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(classes)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        del t  # autonomous
        y, z = F.leaky_relu(state, LEAK).split([self.features, self.classes], 1)
        slope = torch.cat([z @ self.weight.t(), -(y @ self.weight)], 1) + self.bias
        return slope - self.gamma * state if self.gamma else slope

    def initial(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.new_full((len(x), self.classes), self.start)], 1)

    def output(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return state[:, self.features :]
