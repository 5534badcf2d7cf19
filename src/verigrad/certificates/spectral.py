"""Lipschitz bounds from the norms of the layers.

The Lipschitz constant of a chain is at most the product over its layers, of a sum at most the sum (Szegedy et al. 2014,
section 4.3), of an ODE block what `stability.py` proves of its steps. With G such a bound for the features before the
last layer W, a logit difference has the constant G ‖W_y − W_k‖, and

    radius = min_k (logit_y − logit_k) / (G ‖W_y − W_k‖)                          (after Tsuzuku, Sato & Sugiyama 2018)

Where the last part is no linear layer, ‖W_y − W_k‖ is √2 (L2) or 2 (Linf), and G is that of the logits.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.folding import exact, fold
from verigrad.certificates.gain import part_gain
from verigrad.certificates.interval import largest_rounding
from verigrad.certificates.parts import Block, Linear, Parts
from verigrad.certificates.stability import block_gain
from verigrad.core.classifier import batch_coupled, predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator

# What float64 may lose in norms and products.
ROUNDING = 1e-9


class Reach(NamedTuple):
    """Lipschitz constants from the image, in one norm.

    Args:
        logits: of the vector of logits.
        pairs: (K, K), of each difference of two logits.
        doubts: why it is not proved, one line for each block; none where it is.
    """

    logits: float
    pairs: Tensor
    doubts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Spectral:
    """Margin over Lipschitz constant, under L2 or Linf.

    Under Linf the larger of two radii: with the Linf norms of all layers, and the L2 radius over √(number of pixels).
    It is sound for networks of layers and for ODE blocks of equal explicit steps. A block whose steps depend on the
    input counts with its exact flow, and the radius is then an estimate.

    Args:
        norm: "l2" or "linf".
        batch: images at a time.

    Raises:
        BadInput: a value is out of range, or on the call the model has a part of which nothing is known.
    """

    norm: Literal["l2", "linf"] = "l2"
    batch: int = 100

    def __post_init__(self) -> None:
        if self.norm not in ("l2", "linf"):
            raise BadInput(f"The 'norm' of Spectral must be 'l2' or 'linf'. Got {self.norm!r}.")
        if self.batch < 1:
            raise BadInput(f"The 'batch' of Spectral must be at least 1. Got {self.batch}.")

    @property
    def subject(self) -> str:
        return "model"

    @property
    def fits_data(self) -> bool:
        return False

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        del generator  # nothing is drawn
        own = predict(model, x, batch=self.batch).double()
        logits = predict(exact(model), x.double(), batch=self.batch)
        predicted = torch.where(torch.isfinite(own).all(1), own.argmax(1), -1)
        rounding = (own - logits).abs().amax(1)
        with torch.no_grad():
            reaches = self._reaches(model, x) if len(x) else ()
        radius = torch.zeros_like(rounding)
        for reach, unit in reaches:
            radius = torch.maximum(radius, _radius(logits, y, reach.pairs.to(x.device), rounding) / unit)
        right = (predicted == y) & torch.isfinite(radius) & torch.isfinite(rounding)
        doubts = reaches[0][0].doubts if reaches else ()
        if batch_coupled(model):
            doubts = (*doubts, "predictions depend on the other images of a batch")
        passes = torch.full_like(y, 2)
        return Certified(
            radius=torch.where(right, torch.minimum(radius, _room(x.double(), self.norm)), 0.0),
            predicted=predicted,
            abstained=predicted < 0,
            alpha=None,
            honesty=Honesty.ESTIMATE if doubts else Honesty.SOUND,
            assumptions=(
                "norms and margins are computed in float64",
                "the model's own rounding is allowed for as it is on the image, and taken to be as small nearby",
                *doubts,
            ),
            forwards=passes,
            backwards=torch.zeros_like(passes),
            facts=_facts(reaches, rounding),
        )

    def _reaches(self, model: nn.Module, x: Tensor) -> tuple[tuple[Reach, float], ...]:
        """Reaches, each with the factor from its norm to the certificate's."""
        parts = fold(model, x[:1])
        if self.norm == "l2":
            return ((reach(parts, "l2"), 1.0),)
        found = [(reach(parts, "l2"), math.sqrt(x[0].numel()))]
        with suppress(BadInput):  # group norm, say, which has an L2 constant alone
            found.append((reach(parts, "linf"), 1.0))
        return tuple(found)


def reach(parts: Parts, norm: str) -> Reach:
    """Lipschitz constants of the logits as a function of the image.

    Raises:
        BadInput: for a part that has none under this norm.
    """
    reaches: list[float] = []
    doubts: list[str] = []
    for part in parts:
        given = [reaches[i] for i in part.inputs]
        if isinstance(part, Block):
            found = block_gain(part.module, part.given, norm)
            reaches.append(given[0] * found.value)
            if not found.proved:
                doubts.append(f"the ODE block {part.name}: {found.why}")
        else:
            reaches.append(part_gain(part, given, norm))
    last = parts[-1]
    if isinstance(last, Linear):
        power = 2.0 if norm == "l2" else 1.0
        # Without the matrix product, whose rounding is large for rows close together.
        rows = torch.cdist(last.weight, last.weight, p=power, compute_mode="donot_use_mm_for_euclid_dist")
        pairs = reaches[last.inputs[0]] * rows
    else:
        apart = math.sqrt(2) if norm == "l2" else 2.0
        pairs = torch.full((last.shape[0], last.shape[0]), apart * reaches[-1], dtype=torch.float64)
    return Reach(reaches[-1], pairs, tuple(doubts))


def _radius(logits: Tensor, y: Tensor, pairs: Tensor, rounding: Tensor) -> Tensor:
    """(N,) least margin over Lipschitz constant, ≥ 0; infinite where no other class can ever win."""
    gap = logits.gather(1, y[:, None]) - logits - 2 * rounding[:, None]
    steep = pairs[y] * (1 + ROUNDING)
    ratio = torch.where(gap > 0, gap / steep, 0.0)
    return ratio.scatter(1, y[:, None], torch.inf).amin(1)


def _room(x: Tensor, norm: str) -> Tensor:
    """(N,) how far the farthest valid image is."""
    far = torch.maximum(x, 1 - x).flatten(1)
    return far.norm(dim=1) if norm == "l2" else far.amax(1)


def _facts(reaches: tuple[tuple[Reach, float], ...], rounding: Tensor) -> dict[str, float]:
    """Lipschitz constants of the logits (infinite ones as the largest number) and the model's rounding."""
    top = torch.finfo(torch.float64).max
    names = ("lipschitz_l2", "lipschitz_linf")
    facts = {
        name: found.logits if found.logits < top else top for name, (found, _) in zip(names, reaches, strict=False)
    }
    return facts | {"rounding": largest_rounding(rounding)}
