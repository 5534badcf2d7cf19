"""Carlini and Wagner's L0 attack (2017, section VI.B): L2 searches on fewer and fewer pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.adam import Adam
from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.attacks.nearest import Nearest
from verigrad.attacks.tanh_space import TanhSpace
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L0, Threat

# The authors' code: the hinge asks for a margin of 0.01; a round freezes pixels in the order of their share in the
# margin up to the first of more than 0.01, and at most 0.3·√(pixels changed), where less than 1e-4 is no change.
HINGE, SMALL_SHARE, FROZEN, UNCHANGED = 0.01, 0.01, 0.3, 1e-4


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL0:
    """Looks for the error that changes the fewest pixels. A round minimises by Adam over w, on the pixels allowed,

        ‖x(w) - x‖₂² + c · max(0.01 - m, 0),   m = max_{j≠y} z_j - z_y,   x(w) of `TanhSpace`,

    and is won at its first error with a margin of 0.01. Then the allowed pixels with the smallest shares
    Σ_channels δ · ∂m/∂x in the margin are frozen at x, and the next round starts from what is left of the change. A
    search of `steps` steps without an error is repeated from the round's start with constant_factor · c; a c above
    `largest_constant` ends the attack. c stays for the next rounds. The error with the fewest changed pixels of all
    iterates is returned if it lies inside the threat, and x else; how far the threat allows to go does not change the
    search. A sample that is misclassified at once takes one pass. Nothing is drawn.

    Deviations: samples run side by side, each with its own pixels, c and Adam; the shares are the paper's, where the
    code takes |Σ δ| · Σ |∂loss/∂w|, which is blind to changes of a pixel's channels that cancel; 100 steps a constant,
    where the code takes 1000, and constants 0.01, 0.1, ... 1000, where it doubles from 0.001 to 2 000 000: Adam's steps
    do not depend on c once the hinge outweighs the distance.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch; samples that are done rest at their nearest error.

    Args:
        steps: Adam steps with one c, from 1 up.
        step_size: Adam's, in w.
        constant: the first c.
        largest_constant: the last c, at least `constant`.
        constant_factor: above 1.
    """

    steps: int = 100
    step_size: float = 0.1
    constant: float = 0.01
    largest_constant: float = 1000.0
    constant_factor: float = 10.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"The 'steps' of CarliniWagnerL0 must be at least 1. Got {self.steps}.")
        for field in ("step_size", "constant"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {field!r} of CarliniWagnerL0 must be a positive number. Got {value}.")
        if not (math.isfinite(self.largest_constant) and self.largest_constant >= self.constant):
            got = f"Got {self.largest_constant}."
            raise BadInput(f"The 'largest_constant' of CarliniWagnerL0 must be finite and at least 'constant'. {got}")
        if not (math.isfinite(self.constant_factor) and self.constant_factor > 1):
            raise BadInput(f"The 'constant_factor' of CarliniWagnerL0 must be above 1. Got {self.constant_factor}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, L0):
            raise BadInput(f"CarliniWagnerL0 is defined for L0. Got {threat}. Use 'cw-l2', 'cw-linf' or 'fmn'.")
        with left_as_found(model):
            probe, nearest, space = Probe(model, y), Nearest(x, threat), TanhSpace(bounds=threat.bounds)
            rows = torch.arange(len(x), device=x.device)
            now = _begin(x, self.constant, space)
            first = True
            while len(rows):
                here = now.here if len(rows) == len(x) else nearest.x_adv.index_copy(0, rows, now.here)
                look = probe.ascend(here, rows, margin)
                wrong = probe.wrong(look.logits, rows)
                nearest.note(now.here, rows, wrong)
                now = self._moved(now, look, wrong, space)
                done = ~now.allowed.flatten(1).any(1) | (now.constant > self.largest_constant)
                if first and not probe.coupled:
                    done |= wrong
                first = False
                if bool(done.any()):
                    rows, now = rows[~done], now.only(~done)
            return nearest.result(probe)

    def _moved(self, now: _Round, look: Ascent, wrong: Tensor, space: TanhSpace) -> _Round:
        """One Adam step of each, or the start of the next search where one is over."""
        gap = now.here - now.x
        short = HINGE - look.value
        won = wrong & (short <= 0)
        allowed = torch.where(_column(won), now.allowed & ~_least(gap, look.gradient, now.allowed), now.allowed)
        pull = _column(torch.where(short > 0, now.constant, 0.0)) * look.gradient
        adam = now.adam.seen((2 * gap - pull) * space.slope(now.here) * now.allowed)
        step = now.step + 1
        lost = ~won & (step >= self.steps)
        over = won | lost
        start = torch.where(_column(won), space.inverse(now.here), now.start)
        w = torch.where(_column(over), start, now.w - self.step_size * adam.direction())
        return now._replace(
            start=start,
            w=w,
            here=torch.where(allowed, space.image(w), now.x),
            adam=adam.restarted(over),
            step=step.masked_fill(over, 0),
            allowed=allowed,
            constant=torch.where(lost, self.constant_factor * now.constant, now.constant),
        )


class _Round(NamedTuple):
    """Where each sample stands; all tensors (R, ...) of the samples not done, allowed (R, 1, H, W) bool."""

    x: Tensor
    start: Tensor
    w: Tensor
    here: Tensor
    adam: Adam
    step: Tensor
    allowed: Tensor
    constant: Tensor

    def only(self, which: Tensor) -> _Round:
        rest = {name: part[which] for name, part in self._asdict().items() if name != "adam"}
        return _Round(adam=self.adam.only(which), **rest)


def _begin(x: Tensor, constant: float, space: TanhSpace) -> _Round:
    w = space.inverse(x)
    allowed = torch.ones_like(x[:, :1], dtype=torch.bool)
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return _Round(x, w, w, x, Adam.start(x), count, allowed, torch.full_like(x[:, 0, 0, 0], constant))


def _least(gap: Tensor, gradient: Tensor, allowed: Tensor) -> Tensor:
    """(R, 1, H, W) bool: the allowed pixels to freeze, at least one where there is one."""
    share = (gap * gradient).sum(1, keepdim=True).masked_fill(~allowed, torch.inf).flatten(1)
    changed = (gap.abs() > UNCHANGED).any(1).flatten(1).sum(1)
    most = torch.minimum(
        (FROZEN * changed.double().sqrt()).ceil().long().clamp(min=1), (share <= SMALL_SHARE).sum(1) + 1
    )
    rank = share.argsort(dim=1, stable=True).argsort(dim=1)
    return (rank < most[:, None]).reshape(allowed.shape) & allowed


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
