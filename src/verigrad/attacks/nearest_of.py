"""The nearest error that any of several minimal attacks finds, image by image (Finlay & Oberman 2021, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Attack, AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


class Found(NamedTuple):
    """The result, and for each sample (B,) which attack found its nearest error, by its place in the list; -1 if none
    did. An image that is misclassified as it stands is the first attack's."""

    result: AttackResult
    finder: Tensor


@dataclass(frozen=True, kw_only=True)
class NearestOf:
    """Best distance per image over all attacks, in the threat's norm.

    Every attack sees every sample, since a later one may come nearer. Passes add up, and one judges the batch at the
    end. Each attack has random streams of its own for each sample, whatever the others drew. Distances without a limit
    need a threat as wide as the box: `Linf(eps=1)`, or `L2` with a large eps. The paper takes the attacks of Carlini
    and Wagner, Boundary, LogBarrier and PGD, which `SmallestEps` makes minimal.

    Where predictions depend on batch-mates the nearest errors come from different batches and need not stand in the
    final one; those that do not are not reported.

    Args:
        attacks: minimal attacks, one or more. A budget attack counts with the distance at which it ends.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        if not self.attacks:
            raise BadInput("The 'attacks' of NearestOf must be one or more. Got (). For example (logbarrier,boundary).")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        return self.search(model, x, y, threat, generator=generator).result

    def search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator) -> Found:
        """The same with the finder of each error; for tables that say which attack was best on how many images."""
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            finder = torch.full_like(y, -1)
            for number, (attack, seed) in enumerate(
                zip(self.attacks, generator.bits(len(self.attacks)).unbind(1), strict=True)
            ):
                got = attack(model, x, y, threat, generator=SampleGenerator(seed))
                probe.forwards += got.forwards
                probe.backwards += got.backwards
                probe.status = torch.maximum(probe.status, got.status)
                before = nearest.distance
                nearest.note(got.x_adv, rows, got.broken)
                finder = torch.where(nearest.distance < before, number, finder)
            result = nearest.result(probe)
            return Found(result, torch.where(result.broken, finder, -1))
