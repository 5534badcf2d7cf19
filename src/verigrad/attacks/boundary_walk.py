"""Where each sample of a Boundary attack (Brendel et al. 2018) stands, what it asks next and what it learns from it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

# Halvings between the image and its start; what they leave, a 256th of the way, is the walk's affair.
HALVINGS = 8
# Further starts are looked at on this share of the distance of the nearest one so far.
NEARER = 0.9
# Every third query of a walk is an orthogonal step alone; a success rate is taken over five queries of its kind.
TEST_EVERY, WINDOW = 3, 5
# Section 2.3: about half of the orthogonal steps should err. Limits and factor are those of foolbox 3.
FACTOR, ORTHOGONAL_RATES, SOURCE_RATES = 1.5, (0.2, 0.5), (0.1, 0.25)


class Walk(NamedTuple):
    """Where each sample stands; all tensors (R, ...) of the samples still asking.

    `here` is its current error, `age` the queries since its first error, -1 before. An error lies on the line from x
    to `here` between the shares `low` and `high` while it is halved. Tries and errors count in the current windows.
    """

    x: Tensor
    here: Tensor
    age: Tensor
    starts: Tensor
    low: Tensor
    high: Tensor
    orthogonal: Tensor
    source: Tensor
    sideways_tries: Tensor
    sideways_errors: Tensor
    inward_tries: Tensor
    inward_errors: Tensor

    def drawing(self) -> Tensor:
        return self.age < 0

    def halving(self) -> Tensor:
        return (self.age >= 0) & (self.age < HALVINGS)

    def screening(self) -> Tensor:
        return (self.age >= HALVINGS) & (self.age < HALVINGS + self.starts)

    def walking(self) -> Tensor:
        return self.age >= HALVINGS + self.starts

    def inward(self) -> Tensor:
        return self.walking() & (self.age % TEST_EVERY != 0)

    def point(self, streams: SampleGenerator, threat: Threat, *, corners: bool) -> Tensor:
        """The next query (R, C, H, W) of each sample."""
        low, high = threat.bounds
        delta = self.here - self.x
        length = _length(delta)
        point = self.x + _column((self.low + self.high) / 2) * delta
        if bool((fresh := self.drawing() | self.screening()).any()):
            noise = streams[fresh].uniform(*self.x.shape[1:], low=low, high=high, dtype=self.x.dtype)
            if corners:
                noise = torch.where(noise < (low + high) / 2, low, high)
            away = noise - self.x[fresh]
            scale = torch.where(self.screening()[fresh], NEARER * length[fresh] / _length(away), 1.0)
            point[fresh] = self.x[fresh] + _column(scale) * away
        if bool((walking := self.walking()).any()):
            eta = streams[walking].normal(*self.x.shape[1:], dtype=self.x.dtype)
            here, reach, sideways = delta[walking], length[walking], self.orthogonal[walking]
            u = here / _column(reach)
            eta = eta - _column((eta * u).flatten(1).sum(1)) * u
            turned = (u + _column(sideways / _length(eta)) * eta) / _column((1 + sideways.square()).sqrt())
            reach = torch.where(self.inward()[walking], 1 - self.source[walking], 1.0) * reach
            point[walking] = self.x[walking] + _column(reach) * turned
        return point.clamp(low, high)

    def learned(self, point: Tensor, wrong: Tensor) -> Walk:
        """After the answer: which points are kept, and the new steps."""
        halving, walking, inward = self.halving(), self.walking(), self.inward()
        middle = (self.low + self.high) / 2
        high = torch.where(halving & wrong, middle, self.high)
        # At the last halving the end of the line moves to where the error is.
        cut = self.x + _column(high) * (self.here - self.x)
        here = torch.where(_column(self.age == HALVINGS - 1), cut, self.here)
        # No point of a walk is farther than the one before it: the box holds x, so cutting to it only shortens.
        here = torch.where(_column(wrong & ~halving), point, here)
        after = self._replace(
            here=here,
            age=torch.where(self.drawing() & ~wrong, self.age, self.age + 1),
            low=torch.where(halving & ~wrong, middle, self.low),
            high=high,
            sideways_tries=self.sideways_tries + (walking & ~inward),
            sideways_errors=self.sideways_errors + (walking & ~inward & wrong),
            inward_tries=self.inward_tries + inward,
            inward_errors=self.inward_errors + (inward & wrong),
        )
        return after._adapted()

    def _adapted(self) -> Walk:
        """Steps of the samples whose windows are full, which begin anew."""
        sideways_full, inward_full = self.sideways_tries >= WINDOW, self.inward_tries >= WINDOW
        least, most = ORTHOGONAL_RATES
        both = _factor(self.sideways_errors < least * WINDOW, self.sideways_errors > most * WINDOW, sideways_full)
        least, most = SOURCE_RATES
        inward = _factor(self.inward_errors < least * WINDOW, self.inward_errors >= most * WINDOW, inward_full)
        return self._replace(
            orthogonal=(self.orthogonal * both).to(self.orthogonal.dtype).clamp(max=1),
            source=(self.source * both * inward).to(self.source.dtype).clamp(max=0.9),
            sideways_tries=self.sideways_tries.masked_fill(sideways_full, 0),
            sideways_errors=self.sideways_errors.masked_fill(sideways_full, 0),
            inward_tries=self.inward_tries.masked_fill(inward_full, 0),
            inward_errors=self.inward_errors.masked_fill(inward_full, 0),
        )


def _factor(shorter: Tensor, longer: Tensor, full: Tensor) -> Tensor:
    return FACTOR ** ((full & longer).double() - (full & shorter).double())


def _length(delta: Tensor) -> Tensor:
    """(R,) in L2, kept above zero."""
    return delta.flatten(1).norm(dim=1).clamp(min=torch.finfo(delta.dtype).tiny)


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)
