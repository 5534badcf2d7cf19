"""The Square attack (Andriushchenko et al. 2020): random search over squares; needs logits, and no gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat

# Section 3.3 and the authors' code: of a budget of 10 000 queries, after which the share of pixels is halved once more.
SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TINY = 1e-12
# Of a sparing search: the share of the queries before the first mark, and how many times its last gain a sample may
# be hoped to gain in each doubling that is left. In a random search gains shrink from one doubling to the next.
FIRST_MARK, HOPE = 0.1, 2.0


@dataclass(frozen=True, kw_only=True)
class Square:
    """A budget attack for Linf and L2 that asks for logits only; of the proposals it keeps those that raise the margin.

    Linf (Algorithm 2) starts from vertical stripes x ± eps, one sign for each column and channel, and proposes to set
    a random square to x ± eps, one sign for each channel. L2 (Algorithm 3) starts from a grid of bumps η of total
    length eps, and proposes to move the length that lies in a second random square, with what the box left unused,
    into a first one, in the shape of η (Eq. 2) added to what is there. The squares' area is a share p of the image,
    which falls from p_init by halves.

    A sample is done at its first error, which may be its clean image. Its passes are one on x, at most `queries` for
    each start, and the judging pass.

    As in the authors' code: the schedule, which is stretched to the number of queries; squares under L2 have an odd
    side from 3 up; under Linf a square that would be set to what it is gets other signs instead. Deviations: places,
    signs and orientations are each sample's own draws; images need not be square.

    A sparing search gives samples up, which is ours: at 20, 40 and 80 % of the queries those leave whose margin
    would not reach zero if each doubling that is left gained twice what the last one did. They get no further start.

    Where predictions depend on batch-mates, all samples propose at the same time and each keeps or refuses by its own
    margin in that company. A sample that errs rests until its batch-mates' moves make it right again; none is given up.

    Args:
        queries: how many points of each start are looked at, from 1 up; 5000 in AutoAttack.
        p_init: the share of pixels in the first squares, in (0, 1].
        restarts: how many starts; only unbroken samples get another one.
        sparing: whether samples without hope are given up.
    """

    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    sparing: bool = False

    def __post_init__(self) -> None:
        if self.queries < 1 or self.restarts < 1:
            got = f"{self.queries} and {self.restarts}"
            raise BadInput(f"'queries' and 'restarts' of Square must be at least 1. Got {got}.")
        if not 0 < self.p_init <= 1:
            raise BadInput(f"The 'p_init' of Square must lie in (0, 1]. Got {self.p_init}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf | L2):
            raise BadInput(f"Square is defined for Linf and L2. Got {threat}. Use 'spsa' for other threats.")
        start = stripes if isinstance(threat, Linf) else bumps
        propose = recolour if isinstance(threat, Linf) else regroup
        with left_as_found(model):
            probe = Probe(model, y)
            x_adv, rows = x.clone(), torch.arange(len(x), device=x.device)
            wrong = probe.wrong(probe.logits(x, rows), rows)
            zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
            now = _Search(x, x, zero, zero, generator.seeds, wrong)
            marks = self._marks()
            for query in range(self.queries * self.restarts):
                if bool(now.wrong.any()) and not probe.coupled:
                    x_adv[rows] = now.here
                    rows, now = rows[~now.wrong], _Search(*(part[~now.wrong] for part in now))
                step = query % self.queries
                if step in marks and not probe.coupled:
                    left = now.hopes(math.log2(self.queries / step)) if step > min(marks) else ~now.wrong
                    x_adv[rows] = now.here
                    rows, now = rows[left], _Search(*(part[left] for part in now))._replace(marked=now.value[left])
                if bool(now.wrong.all()):
                    break
                streams = SampleGenerator(now.seeds, generator.counter)
                share = self.p_init / 2 ** sum(step * 10_000 > bound * self.queries for bound in SCHEDULE)
                point = propose(now.here, now.x, threat, share, streams) if step else start(now.x, threat, streams)
                generator.counter = streams.counter
                point = torch.where(_column(now.wrong), now.here, point)
                logits = probe.logits(point, rows) if probe.coupled else probe.queries(point[:, None], rows)[:, 0]
                value = margin(logits, probe.y[rows]).double()
                value = torch.where(torch.isfinite(logits).all(1), value, -torch.inf)
                # A start is kept whatever it scores, and a sample at rest is measured anew in its new company.
                keep = (value > now.value) | now.wrong | (step == 0)
                now = now._replace(
                    here=torch.where(_column(keep), point, now.here),
                    value=torch.where(keep, value, now.value),
                    wrong=probe.wrong(logits, rows),
                )
            x_adv[rows] = now.here
            return probe.result(x_adv, x, threat)

    def _marks(self) -> set[int]:
        """10, 20, 40 and 80 % of the queries; a sparing search looks back from each to the one before it."""
        shares = (FIRST_MARK * 2**k for k in range(4)) if self.sparing else ()
        return {step for share in shares if (step := round(share * self.queries)) > 0}


class _Search(NamedTuple):
    """The samples still searching: x and the best points (R, C, H, W), margins there and at the last mark, seeds, and
    who errs (R,)."""

    x: Tensor
    here: Tensor
    value: Tensor
    marked: Tensor
    seeds: Tensor
    wrong: Tensor

    def hopes(self, doublings: float) -> Tensor:
        """(R,) whether a margin could still rise to zero in so many doublings of the queries."""
        return -self.value <= HOPE * doublings * (self.value - self.marked)


def stripes(x: Tensor, threat: Threat, streams: SampleGenerator) -> Tensor:
    """x ± eps in the box, one sign for each channel and column."""
    return threat.project(x + threat.size * streams.signs(x.shape[1], 1, x.shape[3], dtype=x.dtype), x)


def recolour(here: Tensor, x: Tensor, threat: Threat, share: float, streams: SampleGenerator) -> Tensor:
    """A square of `here` set to x ± eps, one sign for each channel; never to what it is, if that can be helped."""
    channels, height, width = x.shape[1:]
    side = max(min(round(math.sqrt(share * height * width)), min(height, width) - 1), 1)
    draw = streams.uniform(2 + 2 * channels, dtype=torch.float64)
    inside, *_ = _square(draw[:, :2], side, x)
    signs, turns = (1 - 2 * (draw[:, 2:] < 0.5).to(x.dtype)).split(channels, 1)
    turns = torch.where((turns == 1).all(1, keepdim=True), -1, turns)
    point = torch.where(inside, threat.project(x + threat.size * signs[..., None, None], x), here)
    again = torch.where(inside, threat.project(x + threat.size * (signs * turns)[..., None, None], x), here)
    return torch.where(_column((point == here).flatten(1).all(1)), again, point)


def bump(side: int) -> Tensor:
    """η of Eq. (2), (side, side) float64 of length 1: two pyramids side by side, of opposite signs."""
    whole = torch.cat([_pyramid(side // 2, side), -_pyramid(side - side // 2, side)])
    return whole / whole.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """Σ_{k=d+1}^{n+1} 1/k² at distance d (in the maximum norm) from the middle, n the largest; of length 1."""
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    tails = (torch.arange(max(height, width) // 2 + 1, 0, -1, dtype=torch.float64) ** -2).cumsum(0).flip(0)
    shape = tails[torch.maximum(down[:, None], across)]
    return shape / shape.norm().clamp(min=TINY)


def bumps(x: Tensor, threat: Threat, streams: SampleGenerator) -> Tensor:
    """x and a grid of η, of a fifth of the image's side each, with random signs and orientations, of length eps."""
    channels, *sides = x.shape[1:]
    side = max(min(sides) // 5, 1)
    tiles = [size // side for size in sides]
    flat = [torch.arange(size, device=x.device) - size % side // 2 for size in sides]
    (i, j), (down, across) = [part % side for part in flat], [part.div(side, rounding_mode="floor") for part in flat]
    inside = ((down >= 0) & (down < tiles[0]))[:, None] & ((across >= 0) & (across < tiles[1]))
    down, across = down.clamp(0, tiles[0] - 1)[:, None], across.clamp(0, tiles[1] - 1)
    signs = streams.signs(channels, *tiles, dtype=x.dtype)[:, :, down, across]
    turned = (streams.uniform(1, *tiles) < 0.5)[:, :, down, across]
    shape = bump(side).to(x)
    return _scaled(inside * signs * torch.where(turned, shape[j, i[:, None]], shape[i[:, None], j]), x, threat)


def regroup(here: Tensor, x: Tensor, threat: Threat, share: float, streams: SampleGenerator) -> Tensor:
    """Algorithm 3: the change in a first square takes the shape ±η + itself, the length of both and the unused one."""
    channels, height, width = x.shape[1:]
    side = min(max(round(math.sqrt(share * height * width)), 3) | 1, (min(height, width) - 1) | 1)
    draw = streams.uniform(5 + channels, dtype=torch.float64)
    first, i, j = _square(draw[:, :2], side, x)
    second, *_ = _square(draw[:, 2:4], side, x)
    shape = bump(side).to(x)
    shape = torch.where(_column(draw[:, 4] < 0.5), shape[j, i], shape[i, j])
    signs = 1 - 2 * (draw[:, 5:, None, None] < 0.5).to(x.dtype)
    change = here - x
    there = first * change
    there = first * signs * shape + there / (_length(there) + TINY)
    unused = (threat.size**2 - _length(change, (1, 2, 3)).square()).clamp(min=0)
    length = (unused / channels + _length((first | second) * change).square()).sqrt()
    moved = torch.where(first, there / (_length(there) + TINY) * length, ~second * change)
    return _scaled(moved, x, threat)


def _scaled(change: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """x + change brought to length eps, cut to the box."""
    scale = threat.size / torch.linalg.vector_norm(change, dim=(1, 2, 3), dtype=torch.float64).clamp(min=TINY)
    return (x + _column(scale).to(x.dtype) * change).clamp(*threat.bounds)


def _length(change: Tensor, dim: tuple[int, ...] = (2, 3)) -> Tensor:
    return torch.linalg.vector_norm(change, dim=dim, keepdim=True)


def _square(draw: Tensor, side: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A square at random, by draw (R, 2) in [0, 1): which pixels (R, 1, H, W) it holds, and each pixel's row
    (R, 1, H, 1) and column (R, 1, 1, W) in it, clamped to it."""
    top, left = ((u * (size - side + 1)).long() for u, size in zip(draw.unbind(1), x.shape[2:], strict=True))
    height, width = (torch.arange(size, device=x.device) for size in x.shape[2:])
    i, j = height[:, None] - _column(top), width - _column(left)
    inside = (i >= 0) & (i < side) & (j >= 0) & (j < side)
    return inside, i.clamp(0, side - 1), j.clamp(0, side - 1)


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
