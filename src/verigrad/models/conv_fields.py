"""The convolutional right-hand side of plain neural ODE networks (Chen et al. 2018), with time as an extra channel."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.counts import check_counts
from verigrad.models.fields import Field, State

PlainNorm = Literal["group", "none"]


def normal(channels: int, groups: int, norm: PlainNorm = "group") -> nn.Module:
    """GroupNorm with min(groups, channels) groups, or the identity.

    Raises:
        BadInput: the channels cannot be split into so many groups.
    """
    if norm not in ("group", "none"):
        raise BadInput(f"The 'norm' must be 'group' or 'none'. Got {norm!r}.")
    if channels < 1 or channels % min(groups, channels):
        raise BadInput(
            f"The 'channels' must be below {groups} or a multiple of {groups} ({groups} groups). Got {channels}."
        )
    return nn.GroupNorm(min(groups, channels), channels) if norm == "group" else nn.Identity()


class ConvField(Field):
    """y' = N( conv( ... relu N( conv( relu N(y) ) ) ) ), y of (B, C, H, W), all convolutions 3×3, padding 1, with bias.

    Each convolution sees the time t as one more channel, the first one, unless `time` is False. The start is the input,
    and the whole end state is handed on.

    Args:
        channels: C, a multiple of `groups` or below.
        convolutions: how many, from 1 up.
        groups: of GroupNorm; with C channels min(groups, C).
        norm: "group" or "none" for N.
        time: whether the field depends on time.
        speed: what the last norm, or without norms the last convolution, is multiplied by at the beginning.
    """

    def __init__(
        self,
        channels: int,
        *,
        convolutions: int = 2,
        groups: int = 8,
        norm: PlainNorm = "group",
        time: bool = True,
        speed: float = 1.0,
    ) -> None:
        check_counts("the field", convolutions=convolutions)
        super().__init__()
        self.time = time
        self.norms = nn.ModuleList(normal(channels, groups, norm) for _ in range(convolutions))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels + time, channels, 3, padding=1) for _ in range(convolutions)
        )
        self.last_norm = normal(channels, groups, norm)
        last = self.last_norm if norm == "group" else self.convolutions[-1]
        with torch.no_grad():
            for weight in last.parameters():
                weight.mul_(speed)

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        # Under own steps t is one time for each sample.
        clock = t.to(state).reshape(-1, 1, 1, 1).expand(len(state), 1, *state.shape[2:])
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            state = F.relu(norm(state))
            state = convolution(torch.cat([clock, state], 1) if self.time else state)
        return self.last_norm(state)

    def initial(self, x: Tensor) -> Tensor:
        return x

    def output(self, state: State) -> Tensor:
        assert isinstance(state, Tensor)
        return state
