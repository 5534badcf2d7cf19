"""A minimal attack made from a budget attack: the smallest eps at which it succeeds, by bisection for each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Attack, AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L0, L2, Linf, Threat

# The ladder spans so many doublings, up to the box's own diameter: for Linf and [0, 1] it begins at 1/1024.
DOUBLINGS = 10


@dataclass(frozen=True, kw_only=True)
class SmallestEps:
    """Bisects over a ladder of 2^rounds - 1 geometric levels of eps, with `attack` under the threat at one level.

    Samples at the same level are attacked as one dense batch. A success is drawn nearer by `blends` halvings of the
    line from x to it, forwards alone; all levels at or above what was reached are then ruled out, as are, after a
    failure, those below. The nearest error met, which may lie between two levels, is returned if it lies inside the
    threat, and x else; the threat's own size plays no part before that. An image that is misclassified at once has
    distance 0 and takes two passes. Each round has random streams of its own.

    Bisection takes it that an attack that fails at some eps fails at all smaller ones; where it does not hold, as for
    a masked gradient, the distance is an upper bound still. Under L0 eps counts pixels and nothing is halved.

    Where predictions depend on batch-mates each level attacks the whole batch and answers for its own samples; the
    nearest errors were met in different batches and need not stand in the final one.

    Args:
        attack: a budget attack.
        rounds: attacks on a sample, from 1 up; 7 make a level 1.056 times the one below.
        blends: halvings after a success, from 0 up.
    """

    attack: Attack = field(default_factory=lambda: PGD(score="margin"))
    rounds: int = 7
    blends: int = 6

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.blends < 0:
            got = f"{self.rounds} and {self.blends}"
            raise BadInput(f"'rounds' of SmallestEps must be at least 1 and 'blends' 0 or more. Got {got}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        seeds = generator.bits(self.rounds).unbind(1)
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            wrong = probe.wrong(probe.logits(x, rows), rows)
            nearest.note(x, rows, wrong)
            rows = rows[~wrong]
            ladder = torch.tensor(self._ladder(x, threat), dtype=torch.float64, device=x.device)
            # Below `low` no success is expected; from `high` up one is known, or the ladder ends.
            low = torch.full_like(y, -1)
            high = torch.full_like(y, len(ladder))
            for seed in seeds:
                rows = rows[high[rows] - low[rows] > 1]
                if not len(rows):
                    break
                level = (low + high) // 2
                won = self._attempts(_Target(model, x, threat, seed), probe, rows, level, ladder.tolist())
                nearest.note(won.x_adv, won.rows, won.broken)
                self._blend(probe, nearest, x, Won(*(part[won.broken] for part in won)))
                reached = torch.searchsorted(ladder, nearest.distance[won.rows])
                high[won.rows] = torch.where(won.broken, torch.minimum(level[won.rows], reached), high[won.rows])
                low[won.rows] = torch.where(won.broken, low[won.rows], level[won.rows])
            return nearest.result(probe)

    def _ladder(self, x: Tensor, threat: Threat) -> list[float]:
        """Rising levels, the last the box's own diameter in the threat's norm."""
        width, top = threat.bounds[1] - threat.bounds[0], 2**self.rounds - 2
        pixels = math.prod(x.shape[2:])
        size = {Linf: width, L2: width * math.sqrt(x.shape[1] * pixels), L0: float(pixels)}.get(type(threat))
        if size is None:
            raise BadInput(f"SmallestEps is defined for Linf, L2 and L0. Got {threat}.")
        levels = [size * 2 ** (DOUBLINGS * (k / top - 1)) for k in range(top + 1)] if top else [size]
        return sorted({float(max(1, round(level))) for level in levels}) if isinstance(threat, L0) else levels

    def _attempts(self, at: _Target, probe: Probe, rows: Tensor, level: Tensor, ladder: list[float]) -> Won:
        """The attack on each of rows at its own level, the samples of one level together."""
        found: list[Won] = []
        for k in torch.unique(level[rows]).tolist():
            own = rows[level[rows] == k]
            shown = torch.arange(len(at.x), device=rows.device) if probe.coupled else own
            streams = SampleGenerator(at.seed[shown])
            got = self.attack(
                at.model, at.x[shown], probe.y[shown], _sized(at.threat, ladder[int(k)]), generator=streams
            )
            probe.forwards[shown] += got.forwards
            probe.backwards[shown] += got.backwards
            probe.status[shown] = torch.maximum(probe.status[shown], got.status)
            mine = own if probe.coupled else torch.arange(len(own), device=rows.device)
            found.append(Won(own, got.x_adv[mine], got.broken[mine]))
        # Rows must rise, as everywhere.
        order = torch.cat([won.rows for won in found]).argsort()
        return Won(*(torch.cat(parts)[order] for parts in zip(*found, strict=True)))

    def _blend(self, probe: Probe, nearest: Nearest, x: Tensor, won: Won) -> None:
        if isinstance(nearest.threat, L0):
            return
        origin = x[won.rows]
        low = torch.zeros_like(origin[:, :1, :1, :1])
        high = torch.ones_like(low)
        for _ in range(self.blends if len(won.rows) else 0):
            middle = (low + high) / 2
            point = origin + middle * (won.x_adv - origin)
            wrong = probe.wrong(probe.logits(x.index_copy(0, won.rows, point), won.rows), won.rows)
            nearest.note(point, won.rows, wrong)
            wrong = wrong.reshape(-1, 1, 1, 1)
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)


class _Target(NamedTuple):
    """What a round attacks: the whole batch, and the seeds (B,) of the round."""

    model: nn.Module
    x: Tensor
    threat: Threat
    seed: Tensor


class Won(NamedTuple):
    """What a round gave: its samples (R,), the attack's points (R, C, H, W), and which of them err (R,)."""

    rows: Tensor
    x_adv: Tensor
    broken: Tensor


def _sized(threat: Threat, size: float) -> Threat:
    return replace(threat, pixels=int(size)) if isinstance(threat, L0) else replace(threat, eps=size)  # pyright: ignore
