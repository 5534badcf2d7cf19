"""The time of extreme value fits, of bounds from gradients and of interval bounds, with auto_LiRPA beside the last."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from certificates_smoothing import seconds, streams
from torch import Tensor, nn

from verigrad.certificates.extremes import fit, supremum
from verigrad.certificates.folding import fold
from verigrad.certificates.gap import look
from verigrad.certificates.interval import Box, margins, propagate
from verigrad.certificates.lipschitz import LBound
from verigrad.certificates.modulus import OmegaBound
from verigrad.models.networks.small import SmallConvNet

SHARES_AT = (0.005, 0.01, 0.02)


@dataclass(frozen=True)
class Timed:
    what: str
    seconds: float
    units: float
    unit: str


def fits(rounds: int) -> list[Timed]:
    """31 fits of 100 maxima each: one at a time, in one call, and each with its test and intervals by bootstrap."""
    maxima = np.random.default_rng(0).gumbel(size=(31, 100))
    works = {
        "31 fits, one after another": lambda: [fit(row[None]) for row in maxima],
        "31 fits in one call": lambda: fit(maxima),
        "31 fits, each with 99 bootstrap fits": lambda: [supremum(row, seed=0) for row in maxima],
    }
    rows = []
    for what, work in works.items():
        took = statistics.median(seconds(work) for _ in range(rounds))
        rows.append(Timed(what, took, 31 / took, "fits a second"))
    return rows


def bounds(rounds: int) -> list[Timed]:
    """L- and omega-bound of 1,000 images over the cost of one gradient of all of them."""
    torch.manual_seed(0)
    model, x = SmallConvNet(channels=8).eval(), torch.rand(1000, 1, 28, 28)
    y = model(x).argmax(1)

    def gradient() -> None:
        for rows in torch.arange(1000).split(100):
            look(model, x[rows], y[rows], "probabilities")

    works = {
        "one gradient": gradient,
        "l-bound, images": LBound(sampler="images"),
        "l-bound, ascent": LBound(),
        "omega-bound, gradient": OmegaBound(sampler="gradient"),
        "omega-bound, ascent": OmegaBound(),
    }
    for weight in model.parameters():
        weight.requires_grad_(False)
    rows, one = [], 0.0
    for what, work in works.items():
        run = work if what == "one gradient" else _called(work, model, x, y)
        took = statistics.median(seconds(run) for _ in range(rounds))
        one = one or took
        rows.append(Timed(what, took, took / one, "gradients"))
    return rows


def _called(certificate: Any, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    return lambda: certificate(model, x, y, generator=streams(len(x)))


@dataclass(frozen=True)
class Peer:
    """Shares of images that a tool proves at `SHARES_AT`, and CPU seconds an image for a bound, the median of five."""

    tool: str
    shares: tuple[float, ...]
    seconds: float


def peers(model: nn.Module, x: Tensor, y: Tensor) -> list[Peer]:
    """Our interval bounds beside auto_LiRPA's, under Linf, without the box of valid images."""
    found = []
    with torch.no_grad():
        parts = fold(model, x[:1])

        def ours(eps: float) -> Tensor:
            boxes = propagate(parts, Box(x.double() - eps, x.double() + eps), {len(parts) - 1, *parts[-1].inputs})
            return margins(parts, boxes, y).amin(1)

        found.append(_peer("interval (ours)", ours, len(x)))
    try:
        from auto_LiRPA import (  # type: ignore[import-not-found]
            BoundedModule,
            BoundedTensor,
            PerturbationLpNorm,
            __version__,
        )
    except ImportError:
        return found
    bounded = BoundedModule(model, x, device="cpu", verbose=False)
    other = torch.stack([torch.tensor([k for k in range(10) if k != label]) for label in y.tolist()])
    rows = torch.eye(10)[y][:, None] - torch.eye(10)[other]

    for method in ("IBP", "CROWN-IBP", "CROWN"):

        def theirs(eps: float, method: str = method) -> Tensor:
            ball = PerturbationLpNorm(norm=float("inf"), eps=eps)
            low, _ = bounded.compute_bounds(x=(BoundedTensor(x, ball),), C=rows, method=method, bound_upper=False)
            return low.detach().amin(1)

        found.append(_peer(f"auto_LiRPA {__version__}, {method}", theirs, len(x)))
    return found


def _peer(tool: str, lowest: Callable[[float], Tensor], n: int) -> Peer:
    shares = tuple(float((lowest(eps) > 0).double().mean()) for eps in SHARES_AT)
    return Peer(tool, shares, statistics.median(seconds(lambda: lowest(SHARES_AT[0])) for _ in range(5)) / n)
