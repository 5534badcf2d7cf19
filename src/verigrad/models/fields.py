"""Right-hand sides of the stabilised neural ODE network (SONet), Huang et al. 2020, arXiv 2009.13145.

A field says three things: the state that an input starts from, its derivative, and what of the end state is handed on.
`variant="released"` follows the published code (github.com/yao-lab/SONet, models/misc.py), `variant="paper"` Eq. (3):

                           released                          paper
    norms                  before and after each half        none
    σ of the classifier    on the state, γ outside of it     around everything, γ inside
    bias of the classifier yes                               none
    z(0) of the classifier 0.1                               1
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.activations import Activation, increasing
from verigrad.models.counts import check_counts

Variant = Literal["released", "paper"]
Norm = Literal["variant", "group", "none"]
State = Tensor | tuple[Tensor, ...]


class Field(nn.Module):
    """An initial value problem with weights: y(t0) = initial(input), y' = forward(t, y), output = output(y(t1))."""

    @abstractmethod
    def initial(self, x: Tensor) -> State:
        """The state at the start, batch first."""

    @abstractmethod
    def output(self, state: State) -> Tensor:
        """What the next layer sees of the state at the end."""


def tiled(x: Tensor, channels: int) -> Tensor:
    """The channels of images (B, C, H, W) over and over, until there are so many; what is left over: the first ones."""
    copies = -(-channels // x.shape[1])
    return x.repeat(1, copies, 1, 1)[:, :channels]


def _checked(owner: str, word: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadInput(f"The '{word}' of {owner} must be {' or '.join(map(repr, allowed))}. Got {value!r}.")
    return value


def _checked_gamma(owner: str, gamma: float) -> float:
    if not 0.0 <= gamma < math.inf:
        raise BadInput(f"The 'gamma' of {owner} must be a finite number of at least 0. Got {gamma!r}.")
    return gamma


class SkewConvField(Field):
    """The feature block, Eq. (3) of the paper with W⁽²⁾ = W, W⁽¹⁾ = -Wᵀ, autonomous.

        x' = N( σ( W∗N(z) - γ N(x) ) ),   z' = N( σ( -Wᵀ∗N(x) - γ N(z) ) )

    σ is strictly increasing, W one kernel for both directions (3×3, or 4×4 with stride 2; padding 1, no bias), and
    N is GroupNorm with min(8, channels) groups, four of them with weights of their own. The paper has no N: there each
    is the identity. x is (B, out_channels, H/stride, W/stride), z is (B, in_channels, H, W).

    The start is z = input, and x = the input with its channels repeated (what is left over: the first ones) and, at
    stride 2, halved by taking every second pixel. Only x is handed on.

    Args:
        in_channels, out_channels: from 1 up; with GroupNorm a multiple of 8, or below 8.
        stride: 1 or 2. At 2, height and width must be even (for 8×8: 8 → 4 → 2 → 1, and no further).
        gamma: the damping γ, from 0 up; 0 in the released code and in the experiments, positive in Theorem 3.1.
        variant: "released" with N, "paper" without.
        activation: σ, one of `ACTIVATIONS`; LeakyReLU of slope 0.01 in the released code.
        norm: "group" or "none" for N; "variant" leaves it to the variant.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        gamma: float = 0.0,
        variant: Variant = "released",
        activation: Activation = "leaky_relu",
        norm: Norm = "variant",
    ) -> None:
        super().__init__()
        _checked("SkewConvField", "variant", variant, ("released", "paper"))
        _checked("SkewConvField", "norm", norm, ("variant", "group", "none"))
        if stride not in (1, 2):
            raise BadInput(f"The 'stride' of SkewConvField must be 1 or 2. Got {stride!r}.")
        grouped = norm == "group" or (norm == "variant" and variant == "released")
        for channels in (in_channels, out_channels):
            if channels < 1 or (grouped and channels % min(8, channels)):
                raise BadInput(
                    f"The channels of SkewConvField must be below 8 or a multiple of 8 (8 groups). Got {channels}."
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.gamma = _checked_gamma("SkewConvField", gamma)
        self.sigma = increasing(activation)
        size = 3 if stride == 1 else 4
        self.kernel = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        nn.init.kaiming_uniform_(self.kernel, a=math.sqrt(5))

        def normal(channels: int) -> nn.Module:
            return nn.GroupNorm(min(8, channels), channels) if grouped else nn.Identity()

        self.norm_x, self.norm_z = normal(out_channels), normal(in_channels)
        self.norm_dx, self.norm_dz = normal(out_channels), normal(in_channels)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        del t  # autonomous
        x, z = self.norm_x(state[0]), self.norm_z(state[1])
        dx = F.conv2d(z, self.kernel, stride=self.stride, padding=1)
        dz = -F.conv_transpose2d(x, self.kernel, stride=self.stride, padding=1)
        if self.gamma:
            dx, dz = dx - self.gamma * x, dz - self.gamma * z
        return self.norm_dx(self.sigma(dx)), self.norm_dz(self.sigma(dz))

    def initial(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise BadInput(
                f"A skew block of stride 2 needs an even height and width. Got {height}×{width}; use images whose "
                "sides can be halved at each of them, multiples of 8 for SONet's three."
            )
        return tiled(x[:, :, :: self.stride, :: self.stride], self.out_channels), x

    def output(self, state: State) -> Tensor:
        return state[0]


class SkewLinearField(Field):
    """The classifier block: features y (B, F) and classes z (B, K), kept as one tensor (B, F + K).

        released:  y' = W σ(z) + b₁ - γ y,    z' = -Wᵀ σ(y) + b₂ - γ z,    z(0) = 0.1
        paper:     y' = σ( W z - γ y ),       z' = σ( -Wᵀ y - γ z ),       z(0) = 1

    and logits = z(t1). The released code solves for one joined tensor, so an adaptive solver takes the root mean square
    of its error over features and classes together, where for a feature block it takes the larger of two.

    Args:
        features, classes: F and K.
        gamma: the damping γ, from 0 up; 0 in the released code.
        variant: which of the two.
        activation: σ, one of `ACTIVATIONS`.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        gamma: float = 0.0,
        variant: Variant = "released",
        activation: Activation = "leaky_relu",
    ) -> None:
        check_counts("SkewLinearField", features=features, classes=classes)
        super().__init__()
        self.released = _checked("SkewLinearField", "variant", variant, ("released", "paper")) == "released"
        self.features = features
        self.classes = classes
        self.gamma = _checked_gamma("SkewLinearField", gamma)
        self.sigma = increasing(activation)
        self.start = 0.1 if self.released else 1.0
        self.weight = nn.Parameter(torch.empty(features, classes))
        self.bias = nn.Parameter(torch.empty(features + classes)) if self.released else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(classes)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        del t  # autonomous
        inner = self.sigma(state) if self.released else state
        y, z = inner.split([self.features, self.classes], 1)
        slope = torch.cat([z @ self.weight.t(), -(y @ self.weight)], 1)
        if self.bias is not None:
            slope = slope + self.bias
        if self.gamma:
            slope = slope - self.gamma * state
        return slope if self.released else self.sigma(slope)

    def initial(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.new_full((len(x), self.classes), self.start)], 1)

    def output(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return state[:, self.features :]
