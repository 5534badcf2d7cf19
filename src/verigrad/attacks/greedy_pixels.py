"""A greedy search over pixels: a budget attack for L0 that asks, where a gradient can only guess."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L0, Threat


@dataclass(frozen=True, kw_only=True)
class GreedyPixels:
    """Changes one pixel after another, each time the one of `candidates` that raises the margin most when asked.

    With the margin's gradient g at the current image, a pixel's promise is Σ_channels max(g·(high - x), g·(low - x)),
    the first-order gain of its best corner of the box. The `candidates` pixels of highest promise are asked at that
    corner, and the best answer is kept; a channel without a gradient stays, unless the whole image has none. Once the
    threat's pixels are used up, `sweeps` times each changed pixel in turn is put back to x, and the best candidate
    takes its place, which may be the same pixel; a sweep that changes nothing is the last. A sample is done at its
    first error, which may be its clean image. Nothing is drawn.

    A pixel takes one forward and backward and `candidates` forwards. Where predictions depend on batch-mates, all
    samples ask at the same time and each keeps what is best for itself in that company; the last images are judged.

    Args:
        candidates: pixels asked for each change, from 1 up; as many as the image has make each change exhaustive.
        sweeps: how often all changed pixels are chosen anew, from 0 up.
    """

    candidates: int = 16
    sweeps: int = 2

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise BadInput(f"The 'candidates' of GreedyPixels must be at least 1. Got {self.candidates}.")
        if self.sweeps < 0:
            raise BadInput(f"The 'sweeps' of GreedyPixels must be 0 or more. Got {self.sweeps}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, L0):
            raise BadInput(f"GreedyPixels is defined for L0. Got {threat}. Use 'pgd'.")
        budget = min(threat.pixels, x.shape[2] * x.shape[3])
        with left_as_found(model):
            probe, x_adv = Probe(model, y), x
            rows = torch.arange(len(x), device=x.device)
            # (B, budget) which pixel each change went to; how many changes in turn were put back where they were.
            places = torch.full((len(x), budget), -1, dtype=torch.int64, device=x.device)
            settled = torch.zeros_like(y)
            for turn in range(budget * (1 + self.sweeps)):
                if not len(rows):
                    break
                slot = turn % budget
                before = places[rows, slot]
                base = x_adv[rows]
                if turn >= budget:
                    back = _with_pixel(base, before.clamp(min=0), _pixel(x[rows], before.clamp(min=0)))
                    base = torch.where((before >= 0).reshape(-1, 1, 1, 1), back, base)
                look = probe.ascend(x_adv.index_copy(0, rows, base), rows, margin)
                wrong = probe.wrong(look.logits, rows)
                taken = places[rows].index_fill(1, torch.tensor([slot], device=x.device), -1)
                image, place = self._best(probe, x_adv, rows, base, look.gradient, taken, threat)
                x_adv = x_adv.index_copy(0, rows, torch.where(wrong.reshape(-1, 1, 1, 1), base, image))
                places[rows, slot] = torch.where(wrong, before, place)
                settled[rows] = torch.where(place == before, settled[rows] + 1, 0)
                done = wrong | (settled[rows] >= budget)
                if not probe.coupled and bool(done.any()):
                    rows = rows[~done]
            return probe.result(x_adv, x, threat)

    def _best(
        self, probe: Probe, x_adv: Tensor, rows: Tensor, base: Tensor, gradient: Tensor, taken: Tensor, threat: Threat
    ) -> tuple[Tensor, Tensor]:
        """Of base (R, C, H, W) with one more pixel the image of highest margin, and the pixel's place (R,)."""
        low, high = threat.bounds
        # Where there is no gradient at all, every pixel's way to its farther bound is as good.
        blind = (gradient == 0).flatten(1).all(1).reshape(-1, 1, 1, 1)
        gradient = torch.where(blind, torch.where(base - low > high - base, -1.0, 1.0), gradient)
        promise = torch.maximum(gradient * (high - base), gradient * (low - base)).sum(1).flatten(1)
        # A place of -1 is none: it goes to a column of its own.
        barred = promise.new_zeros(len(promise), promise.shape[1] + 1, dtype=torch.bool)
        barred = barred.scatter(1, taken.where(taken >= 0, promise.shape[1]), True)[:, :-1]
        count = min(self.candidates, promise.shape[1])
        where = promise.masked_fill(barred, -torch.inf).topk(count, dim=1).indices
        corner = torch.where(gradient > 0, high, low).to(base.dtype)
        corner = torch.where(gradient == 0, base, corner)
        points = torch.stack([_with_pixel(base, q, _pixel(corner, q)) for q in where.unbind(1)], dim=1)
        if probe.coupled:
            logits = torch.stack([probe.logits(x_adv.index_copy(0, rows, p), rows) for p in points.unbind(1)], dim=1)
        else:
            logits = probe.queries(points, rows)
        value = margin(logits.flatten(0, 1), probe.y[rows].repeat_interleave(count)).reshape(-1, count)
        top = torch.where(torch.isfinite(value), value, -torch.inf).argmax(1)
        each = torch.arange(len(rows), device=top.device)
        return points[each, top], where[each, top]


def _pixel(x: Tensor, place: Tensor) -> Tensor:
    """(R, C, 1): all channels of one pixel of each image, place (R,) counting row by row."""
    return x.flatten(2).gather(2, place[:, None, None].expand(-1, x.shape[1], 1))


def _with_pixel(x: Tensor, place: Tensor, colour: Tensor) -> Tensor:
    return x.flatten(2).scatter(2, place[:, None, None].expand_as(colour), colour).reshape(x.shape)
