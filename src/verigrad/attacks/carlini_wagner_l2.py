"""Carlini and Wagner's L2 attack (2017, section VI.A), with the search over the constant run for each sample."""

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
from verigrad.core.threat import L2, Threat

# The authors' code: a search that fails multiplies the constant by ten until one succeeds, and every tenth of a search
# is checked for whether the loss fell below this share of what it was.
WIDEN = 10.0
PROGRESS = 0.9999
# One sample's loss swings more than a batch's: only so many such checks in turn end its search. Measured on digits with
# c = 1: ending at the first one leaves distances 5 % larger, at the third 1 %.
PATIENCE = 3


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2:
    """Looks for the nearest error in L2: with x(w) of `TanhSpace`, Adam minimises over w

        ‖x(w) - x‖₂² + c · max(confidence - m(x(w)), 0),   m = max_{j≠y} z_j - z_y.

    Each of `search_steps` searches starts at x with a fresh Adam. The first one's c is `constant`; after a search that
    met an error c goes to the middle of the largest c that failed and this one, after one that met none to the middle
    of this one and the smallest that succeeded, or to 10·c before any did. The nearest error of all iterates is
    returned if it lies inside the threat, and x else; how far the threat allows to go does not change the search. A
    sample that is misclassified at once takes one pass; every other one takes at most search_steps · steps forwards and
    backwards, and the judging pass. Nothing is drawn.

    As in the authors' code, images are shrunk by a factor 0.999999, so that pixels on the box's border can move, though
    slowly: w is 7.3 there. Deviations: searches, constants and early ends are each sample's own, where the code ends
    one when the whole batch's loss stalls; the first look is at x itself and not at x(w), and a search after the first
    one uses its gradient again; no search is repeated with the smallest c that succeeded.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch; samples that are done rest at their nearest error.

    Args:
        steps: Adam steps of one search, from 1 up.
        search_steps: how many constants are tried, from 1 up.
        constant: the first c.
        confidence: by how much the margin of an error must exceed zero to count, from 0 up.
        step_size: Adam's, in w.
        abort_early: whether a search ends when three tenths of its steps in turn did not lower the loss by 0.01 %.
    """

    steps: int = 100
    search_steps: int = 9
    constant: float = 0.1
    confidence: float = 0.0
    step_size: float = 0.01
    abort_early: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.search_steps < 1:
            got = f"{self.steps} and {self.search_steps}"
            raise BadInput(f"'steps' and 'search_steps' of CarliniWagnerL2 must be at least 1. Got {got}.")
        for name in ("constant", "step_size"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"The {name!r} of CarliniWagnerL2 must be a positive number. Got {value}.")
        if not (math.isfinite(self.confidence) and self.confidence >= 0):
            raise BadInput(f"The 'confidence' of CarliniWagnerL2 must be a number from 0 up. Got {self.confidence}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, L2):
            raise BadInput(f"CarliniWagnerL2 is defined for L2. Got {threat}. Use 'cw-linf' or 'fmn'.")
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            space = TanhSpace(bounds=threat.bounds)
            now = _begin(x, self.constant, space)
            look = probe.ascend(x, rows, margin)
            wrong = probe.wrong(look.logits, rows)
            nearest.note(x, rows, wrong)
            if not probe.coupled:
                right = ~wrong
                rows, now, wrong, look = rows[right], now.only(right), wrong[right], Ascent(*(t[right] for t in look))
            while len(rows):
                now = self._moved(now, look, wrong, space)
                done = now.searches >= self.search_steps
                if bool(done.any()):
                    rows, now = rows[~done], now.only(~done)
                here = now.here if len(rows) == len(x) else nearest.x_adv.index_copy(0, rows, now.here)
                look = probe.ascend(here, rows, margin)
                # As in the code: z_y + confidence is compared with the other logits.
                wrong = probe.wrong(look.logits, rows) & (look.value >= self.confidence)
                nearest.note(now.here, rows, wrong)
            return nearest.result(probe)

    def _moved(self, now: _Search, look: Ascent, wrong: Tensor, space: TanhSpace) -> _Search:
        """One Adam step of each, or the start of the next search where one is over."""
        gap = now.here - now.x
        short = self.confidence - look.value
        weight = torch.where(short > 0, now.constant, 0.0)
        ended = torch.zeros_like(wrong)
        if self.abort_early:
            loss = gap.square().flatten(1).sum(1) + weight * short
            check = now.adam.time % math.ceil(self.steps / 10) == 0
            lower = loss <= PROGRESS * now.checked_loss  # a loss that is NaN is no progress
            stalled = torch.where(check & lower, 0, now.stalled + check)
            ended = stalled >= PATIENCE
            now = now._replace(stalled=stalled, checked_loss=torch.where(check & lower, loss, now.checked_loss))
        gap.mul_(2).addcmul_(_column(weight), look.gradient, value=-1).mul_(space.slope(now.here))
        adam = now.adam.seen(gap)
        ended = ended | (adam.time >= self.steps)
        w = now.w - self.step_size * adam.direction()
        now = now._replace(
            w=w,
            here=space.image(w),
            adam=adam,
            found=now.found | wrong,
        )
        return now.next_search(ended) if bool(ended.any()) else now


class _Search(NamedTuple):
    """Where each sample stands; all tensors (R, ...) of the samples not done.

    `start` is w at the image and `here` the image of w; `checked_loss` is the least loss of all checks, `stalled`
    counts checks in turn that did not lower it, and `found` says whether the search met an error. The constants in
    `failed` and `succeeded` enclose the next one.
    """

    x: Tensor
    start: Tensor
    w: Tensor
    here: Tensor
    adam: Adam
    constant: Tensor
    failed: Tensor
    succeeded: Tensor
    searches: Tensor
    checked_loss: Tensor
    stalled: Tensor
    found: Tensor

    def only(self, which: Tensor) -> _Search:
        rest = {name: part[which] for name, part in self._asdict().items() if name != "adam"}
        return _Search(adam=self.adam.only(which), **rest)

    def next_search(self, ended: Tensor) -> _Search:
        succeeded = torch.where(ended & self.found, self.constant, self.succeeded)
        failed = torch.where(ended & ~self.found, self.constant, self.failed)
        wider = torch.where(torch.isfinite(succeeded), (failed + succeeded) / 2, WIDEN * self.constant)
        images = _column(ended)
        return self._replace(
            w=torch.where(images, self.start, self.w),
            here=torch.where(images, self.x, self.here),
            adam=self.adam.restarted(ended),
            constant=torch.where(ended, wider, self.constant),
            failed=failed,
            succeeded=succeeded,
            searches=self.searches + ended,
            checked_loss=self.checked_loss.masked_fill(ended, torch.inf),
            stalled=self.stalled.masked_fill(ended, 0),
            found=self.found & ~ended,
        )


def _begin(x: Tensor, constant: float, space: TanhSpace) -> _Search:
    w = space.inverse(x)
    ones = torch.ones_like(x[:, 0, 0, 0])
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return _Search(
        x=x,
        start=w,
        w=w,
        here=x,
        adam=Adam.start(x),
        constant=ones * constant,
        failed=ones * 0,
        succeeded=ones * torch.inf,
        searches=count,
        checked_loss=ones * torch.inf,
        stalled=count,
        found=count.bool(),
    )


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
