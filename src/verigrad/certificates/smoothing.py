"""Randomised smoothing (Cohen et al. 2019): the class that wins most votes under Gaussian noise, and how far it wins.

If the class A wins a share p > ½ of the votes of f(x + N(0, σ²)), the smoothed classifier answers A within
σ Φ⁻¹(p) of x under L2 (Theorem 1, with 1 − p for the share of all others). A lower confidence bound of p gives a radius
that holds with its confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.gap import check_images
from verigrad.certificates.noisy_votes import BLOCK, NoisyVotes, Precision, check_noise
from verigrad.certificates.stopping import Betting, Staged, Stopping, four_stages
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator

Test = Literal["fixed", "curtailed", "staged", "betting"]


class _Followed(NamedTuple):
    """Of N images: lower bounds of the leading class's share, and how many copies were drawn; both (N,)."""

    lower: np.ndarray
    drawn: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """σ Φ⁻¹ of a lower bound of the leading class's share; abstains where that is not above ½.

    The class that leads among n0 noisy copies is followed on up to n others (the procedure CERTIFY of Cohen et al.). A
    wrong class has radius 0, and an abstention too. Without `radii` the radius is the one of all n draws. With `radii`
    it is only asked of each of them whether it is certified, and an image's draws end when that is settled: its radius
    is then what was proved by then, at least the largest of `radii` that is certified. One alpha serves all of them,
    since the bound behind them is one.

    Tests: `fixed` draws n copies. `curtailed` ends as soon as the rest cannot change the answer, which is that of
    `fixed`; without `radii` these are abstentions and wrong classes. `staged` and `betting` need `radii`: the first
    looks after n/1000, n/100, n/10 and n draws with a quarter of alpha each, the second may look at any time; both
    give up where a radius is unlikely to be reached. An image close to its radius may be certified by one test alone.

    Costs n0 + n forward passes an image at most. Non-finite logits vote for no class.

    Args:
        sigma: of the noise, in pixels of [0, 1], before any normalisation.
        radii: rising, in L2, from 0 up: 0 asks for the prediction alone.
        test: when draws end.
        n0: copies from which the class is chosen.
        n: the most copies by which it is certified.
        alpha: the chance of each radius to be wrong.
        dtype: "bf16" certifies the model as it computes under autocast to bfloat16, which is another classifier.
        batch: noisy copies evaluated together, of one image or of several; changes no result.

    Raises:
        BadInput: a setting is out of range, or n draws could never certify the largest radius.
    """

    sigma: float
    radii: tuple[float, ...] = ()
    test: Test = "curtailed"
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    dtype: Precision = "model"
    batch: int = 200

    norm = "l2"
    fits_data = False

    def __post_init__(self) -> None:
        counts = {"n0": self.n0, "n": self.n, "batch": self.batch}
        check_noise("smoothing", sigma=self.sigma, alpha=self.alpha, dtype=self.dtype, **counts)
        if self.test not in get_args(Test):
            raise BadInput(f"The 'test' of smoothing must be one of {', '.join(get_args(Test))}. Got {self.test!r}.")
        if not all(0 <= radius < math.inf for radius in self.radii) or any(a >= b for a, b in pairwise(self.radii)):
            raise BadInput(f"The 'radii' of smoothing must be rising numbers from 0 up. Got {self.radii}.")
        if self.test in ("staged", "betting") and not self.radii:
            raise BadInput(
                f"The test {self.test!r} of smoothing decides at given radii. Add for example radii=(0,0.25,0.5), or "
                "use test=curtailed for the largest radius."
            )
        largest = self.largest
        if largest <= (self.radii[-1] if self.radii else 0.0):
            wanted = f"the radius {self.radii[-1]}" if self.radii else "any radius"
            raise BadInput(
                f"n={self.n} draws can never certify {wanted} at alpha={self.alpha}: with every vote for one class it "
                f"is {max(largest, 0.0):.4g}. Give a larger n or sigma."
            )

    @property
    def subject(self) -> str:
        return "smoothed model" + (" in bfloat16" if self.dtype == "bf16" else "")

    @property
    def part(self) -> int:
        """Images in a part of a run: one where each takes all n draws, so that no more is lost of a run cut off."""
        return 20 if self.radii else 1

    @property
    def largest(self) -> float:
        """The radius of an image on whose copies all votes agree."""
        return self._radius(self._rule().bound(np.array([self.n]), self.n)).item()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        return self.watched(model, x, y, generator=generator, told=lambda settled: None)

    def watched(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator, told: Callable[[int], None]
    ) -> Certified:
        """The same, telling how many images are settled, when one is and whenever the draws have doubled."""
        check_images(x, y, generator)
        choosing, following = generator.bits(2).T.tolist()
        noise = {"sigma": self.sigma, "batch": self.batch, "dtype": self.dtype}
        with left_as_found(model):
            chosen = NoisyVotes(model, x, seeds=choosing, **noise).more(range(len(x)), self.n0)
            leader = chosen[:, :-1].argmax(1)
            votes = NoisyVotes(model, x, seeds=following, **noise)
            followed = self._follow(votes, leader, (leader == y).cpu().numpy(), told)
        sure = torch.from_numpy(followed.lower > 0.5).to(x.device)
        radius = torch.from_numpy(np.maximum(self._radius(followed.lower), 0.0)).to(x.device)
        forwards = torch.from_numpy(followed.drawn).to(x.device) + math.ceil(self.n0 / BLOCK) * BLOCK
        return Certified(
            radius=torch.where(sure & (leader == y), radius, 0.0),
            predicted=torch.where(sure, leader, -1),
            abstained=~sure,
            alpha=self.alpha,
            honesty=Honesty.PROBABILISTIC,
            assumptions=self._assumptions(),
            forwards=forwards,
            backwards=torch.zeros_like(forwards),
            facts={"sigma": self.sigma, "largest_radius": self.largest},
        )

    def _follow(self, votes: NoisyVotes, leader: Tensor, right: np.ndarray, told: Callable[[int], None]) -> _Followed:
        """Draws until all is settled. Images that are not go on side by side."""
        rule = self._rule()
        shares = ndtr(np.array(self.radii or (0.0,)) / self.sigma)
        k, drawn, lower = np.zeros(len(right), np.int64), np.zeros(len(right), np.int64), np.zeros(len(right))
        open_ = np.arange(len(right))
        t, heard = 0, 0
        while len(open_) and t < rule.n:
            seen, t = t, rule.next_look(t)
            counts = votes.more(open_.tolist(), t - seen)
            own = leader[torch.from_numpy(open_).to(leader.device)]
            k[open_] += counts.gather(1, own[:, None]).squeeze(1).cpu().numpy()
            drawn[open_] += math.ceil((t - seen) / BLOCK) * BLOCK
            lower[open_] = np.maximum(lower[open_], rule.bound(k[open_], t))
            settled = self._settled(rule, k[open_], t, lower[open_], right[open_], shares)
            open_ = open_[~settled]
            if settled.any() or t >= 2 * heard:
                heard = t
                told(len(right) - len(open_))
        return _Followed(lower, drawn)

    def _settled(
        self, rule: Stopping, k: np.ndarray, t: int, lower: np.ndarray, right: np.ndarray, shares: np.ndarray
    ) -> np.ndarray:
        """(N,) whose draws can end. Wrong classes are followed to the first share, to know whether they abstain."""
        if self.test == "fixed":
            return np.zeros(len(k), dtype=bool)
        beyond = rule.beyond(k, t, shares)
        decided = (lower[:, None] > shares) | beyond
        return np.where(right, decided.all(1) if self.radii else beyond[:, 0], decided[:, 0])

    def _rule(self) -> Stopping:
        if self.test == "betting":
            return Betting(n=self.n, alpha=self.alpha)
        return Staged(stages=four_stages(self.n) if self.test == "staged" else (self.n,), alpha=self.alpha)

    def _radius(self, share: np.ndarray) -> np.ndarray:
        return self.sigma * ndtri(share)

    def _assumptions(self) -> tuple[str, ...]:
        precision = (
            "the model that is smoothed computes in bfloat16, under autocast; in another precision it is another"
        )
        return (
            f"what answers is the vote of the model under noise of sigma {self.sigma:g} in pixels, and not the model",
            f"each radius is wrong with a chance of at most {self.alpha:g} over its own draws",
            "pseudorandom noise is as good as random noise",
            *((precision,) if self.dtype == "bf16" else ()),
        )
