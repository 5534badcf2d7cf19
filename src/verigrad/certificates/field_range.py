"""What is proved of the Jacobians of the fields: C + E, C fixed and normal, and E no longer than a known length."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.gain import conv_gain, group_norm_gain, matrix_gain
from verigrad.core.errors import BadInput
from verigrad.models.activations import ACTIVATIONS, LEAK
from verigrad.models.conv_fields import ConvField
from verigrad.models.fields import Field, SkewConvField, SkewLinearField


class FieldRange(NamedTuple):
    """Bounds in one norm on J, where f(t, u) − f(t, v) = J (u − v) for any two states at one time.

    Args:
        start: Lipschitz constant of the way from input to state at the start. What is handed on is a part of the state.
        lipschitz: of f.
        growth: the logarithmic norm of J.
        damping, frequency, spread: J = C + E, the eigenvalues of the normal C are −damping ± iω with ω in
            [0, frequency], ‖E‖ ≤ spread. All of the Lipschitz constant is spread where no C is known.
        normal_norm: whether the norm is the Euclidean one.
    """

    start: float
    lipschitz: float
    growth: float
    damping: float
    frequency: float
    spread: float
    normal_norm: bool


# The least and the largest slope of each activation, for difference quotients too.
SLOPES: dict[Callable[[Tensor], Tensor], tuple[float, float]] = {
    ACTIVATIONS["leaky_relu"]: (LEAK, 1.0),
    ACTIVATIONS["elu"]: (0.0, 1.0),
    ACTIVATIONS["softplus"]: (0.0, 1.0),
    ACTIVATIONS["tanh"]: (0.0, 1.0),
    ACTIVATIONS["sigmoid"]: (0.0, 0.25),
    ACTIVATIONS["identity"]: (1.0, 1.0),
}


@torch.no_grad()
def field_range(field: Field, given: tuple[int, ...], norm: str) -> FieldRange:
    """The range of a field's Jacobians in the norm "l2" or "linf".

    Args:
        given: the shape of the block's input without the batch.

    Raises:
        BadInput: for a field of which nothing is known.
    """
    if type(field) is SkewLinearField:
        w = field.weight if norm == "l2" else None
        width = matrix_gain(w, "l2") if w is not None else _rows(field.weight.abs().sum(1), field.weight.abs().sum(0))
        return _skew(width, field.gamma, _slopes(field.sigma), inside=field.released, start=1.0, norm=norm)
    if type(field) is SkewConvField:
        return _skew_conv(field, given, norm)
    if type(field) is ConvField and norm == "l2":
        return _unknown_centre(1.0, _chain(field, given), norm)
    raise BadInput(f"No {norm} bound is known for the field {type(field).__name__}. Known: the skew and conv fields.")


def _rows(*sums: Tensor) -> float:
    return max(float(part.max()) for part in sums)


def _slopes(sigma: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    if sigma not in SLOPES:
        raise BadInput(f"The slopes of the activation {getattr(sigma, '__name__', sigma)!r} are not known.")
    return SLOPES[sigma]


def _skew(
    width: float, gamma: float, slopes: tuple[float, float], *, inside: bool, start: float, norm: str
) -> FieldRange:
    """σ(Au − γu), or Aσ(u) − γu with σ `inside`; A = (0, W; −Wᵀ, 0), ‖A‖ = ‖W‖ = `width`, σ of slopes in [s, S].

    J = D(A − γI) or AD − γI with D diagonal in [s, S]; D = mI + E', m = (s + S)/2, ‖E'‖ ≤ d = (S − s)/2. Since A is
    skew, the symmetric part is ½(E'A − AE') − γD, or ½(AE' − E'A) − γI: at most d‖A‖ − γs, or d‖A‖ − γ.
    """
    least, most = slopes
    mean, half = (most + least) / 2, (most - least) / 2
    length = math.hypot(width, gamma) if norm == "l2" else width + gamma
    lipschitz = most * width + gamma if inside else most * length
    if norm != "l2":
        return _unknown_centre(start, lipschitz, norm)
    # What lies between s and S spreads about the centre mA − γI, or m(A − γI).
    damping, spread = (gamma, half * width) if inside else (mean * gamma, half * length)
    growth = half * width - (gamma if inside else gamma * least)
    return FieldRange(start, lipschitz, min(growth, lipschitz), damping, mean * width, spread, True)


def _skew_conv(field: SkewConvField, given: tuple[int, ...], norm: str) -> FieldRange:
    """x is the input repeated n times at most, z the input itself: ‖(x, z)‖ ≤ √(n + 1) ‖input‖."""
    kernel, stride = field.kernel, (field.stride, field.stride)
    if norm == "l2":
        width = conv_gain(kernel, (given[1], given[2]), norm, stride=stride)
        start = math.sqrt(1 - (-field.out_channels // field.in_channels))
    else:
        # Rows of the convolution, and of its transpose.
        width = _rows(kernel.abs().sum((1, 2, 3)), kernel.abs().sum((0, 2, 3)))
        start = 1.0
    found = _skew(width, field.gamma, _slopes(field.sigma), inside=False, start=start, norm=norm)
    inner = max(group_norm_gain(field.norm_x), group_norm_gain(field.norm_z))
    outer = max(group_norm_gain(field.norm_dx), group_norm_gain(field.norm_dz))
    if not isinstance(field.norm_x, nn.GroupNorm):
        return found
    if norm != "l2":
        raise BadInput("No linf bound is known for the group norms of SkewConvField.")
    return _unknown_centre(start, inner * found.lipschitz * outer, norm)


def _chain(field: ConvField, given: tuple[int, ...]) -> float:
    """The product over norms and convolutions; the channel of the time is the same for both states."""
    product = group_norm_gain(field.last_norm)
    for normal, convolution in zip(field.norms, field.convolutions, strict=True):
        weight = convolution.weight
        assert isinstance(weight, Tensor)
        weight = weight[:, 1:] if field.time else weight
        product *= group_norm_gain(normal) * conv_gain(weight, (given[1], given[2]), "l2")
    return product


def _unknown_centre(start: float, lipschitz: float, norm: str) -> FieldRange:
    return FieldRange(start, lipschitz, lipschitz, 0.0, 0.0, lipschitz, norm == "l2")
