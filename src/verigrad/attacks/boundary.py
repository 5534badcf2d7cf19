"""The Boundary attack (Brendel et al. 2018, Algorithm 1): a minimal attack that asks for predictions alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.attacks.boundary_walk import Walk
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat

# A walk whose orthogonal step is shorter moves no pixel of float32 any more.
SHORTEST = 1e-7


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Walks along the decision boundary towards x, by predictions alone. It is a walk in L2, under any threat.

    Start: uniform noise until a draw errs, every other draw rounded to the corners of the box; eight halvings on the
    line from x to it; then `starts` more draws, each put at 0.9 of the distance reached, and taken if it errs there.
    Step from an error at distance r in direction u:

        x + (1 - source) · r · (u + orthogonal · η) / √(1 + orthogonal²),   η uniform, ⟂ u, ‖η‖₂ = 1, cut to the box,

    which is kept if it errs. Every third query leaves out `source`. Both steps belong to the sample. Over each five
    queries without it, more than half of them errors make both steps 1.5 times longer, less than a fifth shorter; over
    each five with it, from a quarter up make `source` longer, below a tenth shorter.

    The nearest error of all queries, in the threat's own norm, is returned if it lies inside the threat, and x else. A
    sample takes `queries` forwards at most, with the look at x, the start and the judging pass among them; one that is
    misclassified at once takes two; one whose noise never errs keeps its image and holds up nobody.

    Deviations: windows are five queries long, where foolbox has 100 tests, one in ten steps, and 30 steps; halvings in
    place of its linear search; several starts, and corners among them; η is drawn for each sample.

    Where predictions depend on batch-mates, all samples ask in one joint batch: an error was met beside the others'
    points of that query and need not stand in the final batch.

    Args:
        queries: forwards of a sample, from 2 up; 1000 in Chu et al. 2020.
        source_step: the first step towards x, as a share of the distance, inside (0, 1).
        orthogonal_step: the first step sideways, as a share of the distance.
        starts: draws looked at after the first that errs, at most a tenth of `queries`.
    """

    queries: int = 1000
    source_step: float = 0.1
    orthogonal_step: float = 0.1
    starts: int = 50

    def __post_init__(self) -> None:
        if self.queries < 2:
            raise BadInput(f"The 'queries' of Boundary must be at least 2. Got {self.queries}.")
        if not 0 < self.source_step < 1:
            raise BadInput(f"The 'source_step' of Boundary must be inside (0, 1). Got {self.source_step}.")
        if not (math.isfinite(self.orthogonal_step) and self.orthogonal_step > 0):
            raise BadInput(f"The 'orthogonal_step' of Boundary must be a positive number. Got {self.orthogonal_step}.")
        if self.starts < 0:
            raise BadInput(f"The 'starts' of Boundary must be 0 or more. Got {self.starts}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf | L2):
            raise BadInput(f"Boundary is defined for L2 and Linf. Got {threat}. Use 'fmn' for L0.")
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            wrong = probe.wrong(probe.logits(x, rows), rows)
            nearest.note(x, rows, wrong)
            rows = rows[~wrong]
            now = self._begin(x[rows])
            first = generator.counter
            for query in range(self.queries - 2):
                if not len(rows):
                    break
                # Two draws a query, taken or not: what a sample gets does not depend on where the others stand.
                streams = SampleGenerator(generator.seeds[rows], first + 2 * query)
                point = now.point(streams, threat, corners=query % 2 == 1)
                wrong = probe.wrong(probe.logits(x.index_copy(0, rows, point), rows), rows)
                nearest.note(point, rows, wrong)
                now = now.learned(point, wrong)
                idle = now.orthogonal < SHORTEST
                if bool(idle.any()):
                    rows, now = rows[~idle], Walk(*(part[~idle] for part in now))
            generator.counter = first + 2 * self.queries
            return nearest.result(probe)

    def _begin(self, x: Tensor) -> Walk:
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        share = torch.ones_like(x[:, 0, 0, 0])
        starts = count + min(self.starts, self.queries // 10)
        orthogonal, source = self.orthogonal_step * share, self.source_step * share
        return Walk(x, x, count - 1, starts, 0 * share, share, orthogonal, source, count, count, count, count)
