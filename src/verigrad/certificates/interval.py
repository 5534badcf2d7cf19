"""Interval bounds under Linf: a box of images is carried through the network, layer by layer.

A linear layer takes the box of centre c and radius r ≥ 0 to centre Wc + b and radius |W|r, an increasing function its
ends to its ends; the last layer is merged with each difference of two classes, so that one layer alone is exact
(Gowal et al. 2018, "On the effectiveness of interval bound propagation").
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.folding import fold
from verigrad.certificates.parts import Conv, Join, Linear, Monotone, Part, Parts, Scale, Source, Sum, applied
from verigrad.core.classifier import device_of, predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator

# Radii below this are given as 0, and the largest that the box of images has room for.
SMALLEST, LARGEST = 1e-6, 1.0
# What float64 may lose between the box and a difference of logits, in parts of the largest logit.
ROUNDING = 1e-9


class Box(NamedTuple):
    """All values between low and high, both (B, ...)."""

    low: Tensor
    high: Tensor


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The largest eps at which interval bounds prove the prediction, found by halving the interval of log eps.

    Each radius is proved by itself; the search only decides how close it is to the largest, by a factor of
    10^(6 / 2^steps). Refuses networks with group norm or ODE blocks, whose boxes would hold nearly everything.

    Args:
        steps: halvings, from 0 up; 12 leaves 0.4 %.
        batch: images at a time.

    Raises:
        BadInput: a number is out of range, or on the call the model has a part without interval bounds.
    """

    steps: int = 12
    batch: int = 100

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            raise BadInput(
                f"Interval needs 'steps' of at least 0 and a 'batch' of at least 1. Got {self.steps} and {self.batch}."
            )

    @property
    def norm(self) -> str:
        return "linf"

    @property
    def subject(self) -> str:
        return "model"

    @property
    def fits_data(self) -> bool:
        return False

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        del generator  # nothing is drawn
        logits = predict(model, x, batch=self.batch).double()
        predicted = torch.where(torch.isfinite(logits).all(1), logits.argmax(1), -1)
        radius, rounding = torch.zeros_like(logits[:, 0]), torch.zeros_like(logits[:, 0])
        if len(x):
            parts = fold(model, x[:1])
            _check(parts)
            for rows in torch.arange(len(x), device=x.device).split(self.batch):
                with torch.no_grad():
                    found = _search(parts, x[rows], y[rows], logits[rows], self.steps, device_of(model))
                radius[rows], rounding[rows] = (part.to(x.device) for part in found)
        right = (predicted == y) & torch.isfinite(radius)
        passes = torch.full_like(y, 1 + 2 * (self.steps + 3))
        return Certified(
            radius=torch.where(right, radius, 0.0),
            predicted=predicted,
            abstained=predicted < 0,
            alpha=None,
            honesty=Honesty.SOUND,
            assumptions=(
                "bounds are computed in float64, whose own rounding is allowed for by 1e-9 of the largest logit",
                "the model's own rounding is allowed for as it is on the image, and taken to be as small nearby",
            ),
            forwards=passes,
            backwards=torch.zeros_like(passes),
            facts={"rounding": largest_rounding(rounding)},
        )


def largest_rounding(rounding: Tensor) -> float:
    """The largest finite entry of (N,), 0 if there is none."""
    return float(torch.where(torch.isfinite(rounding), rounding, 0.0).max()) if len(rounding) else 0.0


def _check(parts: Parts) -> None:
    for part in parts:
        if not isinstance(part, Source | Linear | Conv | Scale | Monotone | Sum | Join):
            raise BadInput(
                f"Interval bounds cannot pass {type(part.module).__name__ if hasattr(part, 'module') else part.name} "  # type: ignore[attr-defined]
                f"({part.name}). Use the certificate spectral, or one that asks for logits alone."
            )


def _search(
    parts: Parts, x: Tensor, y: Tensor, logits: Tensor, steps: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(B,) radii, and the largest difference of the model's logits to those of the parts."""
    x, y, logits = x.to(device).double(), y.to(device), logits.to(device)
    needed = {len(parts) - 1, *parts[-1].inputs}
    point = propagate(parts, Box(x, x), needed)
    own = (logits - point[len(parts) - 1].low).abs().amax(1)
    slack = 2 * own + ROUNDING * logits.abs().amax(1)

    def proved(eps: Tensor) -> Tensor:
        eps = eps.reshape(-1, 1, 1, 1)
        reached = propagate(parts, Box((x - eps).clamp(min=0.0), (x + eps).clamp(max=1.0)), needed)
        return margins(parts, reached, y).amin(1) > slack

    low, high = torch.full_like(own, SMALLEST), torch.full_like(own, LARGEST)
    some, all_ = proved(low), proved(high)
    for _ in range(steps):
        middle = (low * high).sqrt()
        good = proved(middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    radius = torch.where(all_, LARGEST, torch.where(some, low, 0.0))
    return torch.minimum(radius, torch.maximum(x, 1 - x).flatten(1).amax(1)), own


def margins(parts: Parts, boxes: Mapping[int, Box], y: Tensor) -> Tensor:
    """(B, K − 1) lower bounds of logit_y − logit_k for all k ≠ y.

    Args:
        boxes: of the last part and its input, from `propagate`.
    """
    last = parts[-1]
    if isinstance(last, Linear):
        box = boxes[last.inputs[0]]
        rows = last.weight[y][:, None] - last.weight
        centre, radius = (box.low + box.high) / 2, (box.high - box.low) / 2
        found = torch.einsum("bkf,bf->bk", rows, centre) - torch.einsum("bkf,bf->bk", rows.abs(), radius)
        found = found + last.bias[y][:, None] - last.bias
    else:
        found = boxes[len(parts) - 1].low.gather(1, y[:, None]) - boxes[len(parts) - 1].high
    others = torch.ones_like(found, dtype=torch.bool).scatter_(1, y[:, None], False)
    return found[others].reshape(len(found), -1)


def propagate(parts: Parts, image: Box, kept: Container[int]) -> dict[int, Box]:
    """The boxes of the values of the parts at the places `kept`, for a box of images (B, C, H, W) in float64."""
    last_use = {i: place for place, part in enumerate(parts) for i in part.inputs}
    boxes: dict[int, Box] = {}
    for place, part in enumerate(parts):
        boxes[place] = image if isinstance(part, Source) else _through(part, [boxes[i] for i in part.inputs])
        for i in set(part.inputs):
            if last_use[i] == place and i not in kept:
                del boxes[i]
    return boxes


def _through(part: Part, given: list[Box]) -> Box:
    box = given[0]
    if isinstance(part, Linear | Conv):
        centre, radius = (box.low + box.high) / 2, (box.high - box.low) / 2
        middle, reach = applied(part, centre, part.weight, part.bias), applied(part, radius, part.weight.abs(), None)
        return Box(middle - reach, middle + reach)
    if isinstance(part, Scale):
        ends = part.factor * box.low + part.shift, part.factor * box.high + part.shift
        return Box(torch.minimum(*ends), torch.maximum(*ends))
    if isinstance(part, Monotone):
        return Box(part.function(box.low), part.function(box.high))
    if isinstance(part, Sum):
        return Box(sum((b.low for b in given[1:]), box.low), sum((b.high for b in given[1:]), box.high))
    assert isinstance(part, Join)
    return Box(torch.cat([b.low for b in given], part.axis), torch.cat([b.high for b in given], part.axis))
