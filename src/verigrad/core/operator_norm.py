"""The Euclidean operator norm of linear maps and convolutions, and a convolution as one small matrix a frequency.

A convolution with zero padding (any) is the circular one on n + k − 1 pixels or more, on inputs that vanish outside the
image, with some outputs left out; neither enlarges the norm. The circular one falls into one matrix for each frequency
(Sedghi, Gupta & Long 2019). Under a stride s the frequencies that fall together on the coarse grid stand side by side,
over √s an axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Pair = tuple[int, int]


def largest_singular(matrices: Tensor) -> float:
    """The largest singular value of all matrices (..., m, n); infinite where an entry is not finite."""
    if not bool(torch.isfinite(matrices).all()):
        return math.inf
    return float(torch.linalg.matrix_norm(matrices, 2).max())


def conv_norm(weight: Tensor, size: Pair, *, stride: Pair = (1, 1), dilation: Pair = (1, 1), groups: int = 1) -> float:
    """A bound on the norm of a convolution with zero padding (any) on images of `size`: that of its circular form.

    Args:
        weight: (out, in / groups, k, k).
    """
    return max(largest_singular(frequencies(part, size, stride, dilation)) for part in weight.chunk(groups))


def frequencies(weight: Tensor, size: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Tensor:
    """(F, out, in · s²), complex: matrices whose singular values are those of the circular convolution of one group.

    A real kernel has conjugate matrices at opposite frequencies, so that half of the second axis is enough.
    """
    spread = _dilated(weight, dilation)
    (h, w), (sh, sw) = grid(size, (spread.shape[-2], spread.shape[-1]), stride), stride
    symbol = torch.fft.fft2(spread, s=(h * sh, w * sw))
    # Frequency f of the coarse grid is met by f + j n/s for all j.
    folded = symbol.reshape(*weight.shape[:2], sh, h, sw, w).permute(3, 5, 0, 1, 2, 4)[:, : w // 2 + 1]
    return folded.reshape(h * (w // 2 + 1), len(weight), -1) / math.sqrt(sh * sw)


def from_frequencies(
    matrices: Tensor, like: Tensor, size: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Tensor:
    """The kernel nearest to such matrices among those with the support of `like`: all other pixels are left out.

    `from_frequencies(frequencies(w, …), w, …)` is w.
    """
    spread = [(k - 1) * d + 1 for k, d in zip(like.shape[-2:], dilation, strict=True)]
    (h, w), (sh, sw) = grid(size, (spread[0], spread[1]), stride), stride
    out, inside = like.shape[:2]
    half = matrices.reshape(h, w // 2 + 1, out, inside, sh, sw).permute(2, 3, 4, 0, 5, 1)
    # The real part of a sum over half of the frequencies, those with a partner taken twice, is the sum over all.
    twice = half.real.new_full((w // 2 + 1,), 2.0)
    twice[0] = 1.0
    if w % 2 == 0:
        twice[-1] = 1.0
    folded = half.new_zeros(out, inside, sh, h, sw, w)
    folded[..., : w // 2 + 1] = half * (twice * math.sqrt(sh * sw))
    kernel = torch.fft.ifft2(folded.reshape(out, inside, h * sh, w * sw)).real
    return kernel[:, :, : spread[0] : dilation[0], : spread[1] : dilation[1]].to(like.dtype)


def grid(size: Pair, spread: Pair, stride: Pair) -> Pair:
    """How many coarse frequencies there are: (n + k − 1) / s, rounded up, for each axis."""
    h, w = (-(-(n + k - 1) // s) for n, k, s in zip(size, spread, stride, strict=True))
    return h, w


def _dilated(weight: Tensor, dilation: Pair) -> Tensor:
    if dilation == (1, 1):
        return weight
    height, width = ((k - 1) * d + 1 for k, d in zip(weight.shape[-2:], dilation, strict=True))
    spread = weight.new_zeros(*weight.shape[:2], height, width)
    spread[:, :, :: dilation[0], :: dilation[1]] = weight
    return spread
