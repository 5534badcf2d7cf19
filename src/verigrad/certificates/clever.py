"""CLEVER (Weng et al. 2018): per image, the gap to each other class over a local Lipschitz constant.

The constant is the location a of a reverse Weibull law, F(x) = exp(−((a − x)/b)^c), fitted to the largest gradient
norms of batches of random points of the ball (Theorem 3.2 and Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import kstwo
from torch import Tensor, nn

from verigrad.certificates.balls import LADDERS, Norm, ball, span
from verigrad.certificates.base import Certified, Honesty
from verigrad.certificates.extremes import gap_to_steps
from verigrad.certificates.gap import Outputs, batches, believable, check_images, check_settings, judged
from verigrad.certificates.simplex import minimise
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

# Weight of c² in the fit, which keeps the shape from running away, and the level of its test (the authors' code).
SHAPE_PENALTY = 0.01
LEVEL = 0.001
# Shapes from which the likelihood is climbed. For c < 1 it has no maximum.
STARTS = (1.5, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True, kw_only=True)
class Clever:
    """min over the other classes j of min{(f_c − f_j)(x) / L_j, eps}, c the predicted class.

    L_j is the fitted location, or the largest norm seen where the fit fails its Kolmogorov-Smirnov test (p < 0.001) or
    there is no spread. Wrong predictions and images with something not finite have radius 0. Costs
    1 + groups · points forward and groups · points · targets backward passes an image.

    Deviations from Weng et al.: 25 groups of 16 points and not 500 of 1,024, which makes 400 gradients an image and
    class and not 512,000, and misses more of the constant; points stay in the valid box; eps is not 5 in every norm.

    Args:
        norm: of the radius; gradients are measured in its dual norm.
        on: whether f is the softmax outputs or the logits.
        eps: radius of the ball, and the largest radius given; None is the top of the norm's ladder (`balls.LADDERS`).
        groups: batches of points, each of which gives one maximum.
        points: in each group.
        targets: other classes looked at, the likeliest first; 0 is all of them.
        batch: images evaluated together; changes no result.
    """

    norm: Norm = "l2"
    on: Outputs = "logits"
    eps: float | None = None
    groups: int = 25
    points: int = 16
    targets: int = 0
    batch: int = 100

    subject = "model"
    fits_data = False

    def __post_init__(self) -> None:
        counts = {"groups": self.groups, "points": self.points, "targets": self.targets + 1, "batch": self.batch}
        check_settings("clever", norm=self.norm, on=self.on, tail="gev", **counts)
        if self.eps is not None and not 0 < self.eps < float("inf"):
            raise BadInput(f"The 'eps' of clever must be a positive number. Got {self.eps}.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified:
        check_images(x, y, generator)
        around = ball(self.norm, LADDERS[self.norm][-1] if self.eps is None else self.eps)
        with left_as_found(model):
            parts = [self._part(model, x[rows], generator[rows], around) for rows in batches(model, len(x), self.batch)]
        logits, gaps, maxima, known = (torch.cat(part) for part in zip(*parts, strict=True))
        predicted, abstained = judged(logits, known)
        constant, fitted = locations(torch.where(known[:, None, None], maxima, 0.0).flatten(0, 1).cpu().numpy())
        slope = torch.from_numpy(constant).to(x.device).reshape(gaps.shape)
        reach = torch.where(slope > 0, gaps / slope.clamp(min=1e-300), torch.inf).amin(1).clamp(max=around.size)
        sure = known & (predicted == y) & (gaps > 0).all(1)
        gradients = self.groups * self.points
        return Certified(
            radius=torch.where(sure, torch.minimum(reach, span(self.norm, x)), 0.0),
            predicted=predicted,
            abstained=abstained,
            alpha=None,
            honesty=Honesty.ESTIMATE,
            assumptions=(
                f"local Lipschitz constants are at most what was estimated from {gradients} random points of each ball",
                "a prediction does not depend on batch-mates",
            ),
            forwards=torch.full_like(predicted, 1 + gradients),
            backwards=torch.full_like(predicted, gradients * gaps.shape[1]),
            facts={"fitted": float(fitted.mean()), "L_median": float(np.median(constant))},
        )

    def _part(
        self, model: nn.Module, x: Tensor, generator: SampleGenerator, around: Threat
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (R, K), gaps (R, J), maxima (R, J, groups) and what is finite (R,) of some images."""
        with torch.no_grad():
            logits = model(x)
        known = believable(logits)
        first = torch.where(known[:, None], logits, 0.0).argmax(1, keepdim=True)
        others = logits.nan_to_num().scatter(1, first, -torch.inf).argsort(1, descending=True)[:, :-1]
        others = others[:, : self.targets] if self.targets else others
        scores = self._outputs(logits).double()
        gaps = scores.gather(1, first) - scores.gather(1, others)
        maxima = torch.zeros(*others.shape, self.groups, dtype=torch.float64, device=x.device)
        for group in range(self.groups):
            for _ in range(self.points):
                point = around.sample(x, generator).requires_grad_(True)
                with torch.enable_grad():
                    output = self._outputs(model(point))
                    lead = output.gather(1, first) - output.gather(1, others)
                for j in range(others.shape[1]):
                    gradient = _gradient(lead[:, j].sum(), point)
                    norm = around.dual_norm(gradient).double()
                    known = known & torch.isfinite(norm)
                    maxima[:, j, group] = torch.maximum(maxima[:, j, group], norm.nan_to_num())
        return logits, gaps, maxima, known

    def _outputs(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.on == "probabilities" else logits


def _gradient(value: Tensor, point: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(value, point, retain_graph=True, allow_unused=True)
    return torch.zeros_like(point) if gradient is None else gradient


def locations(maxima: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (B,) for rows of maxima (B, n), and whether each is the fitted location (True) or the largest maximum."""
    top, low = maxima.max(axis=1), maxima.min(axis=1)
    spread = top - low
    fitted = (spread > 1e-6 * top) & (maxima.shape[1] >= 4)
    found = top.copy()
    if fitted.any():
        # In units of their spread below the largest, so that one tolerance serves gradients of any size.
        below = (top - maxima.T).T[fitted] / spread[fitted, None]
        beyond, scale, shape = _fit(below)
        with np.errstate(all="ignore"):
            cdf = np.exp(-(((np.sort(below, axis=1)[:, ::-1] + beyond[:, None]) / scale[:, None]) ** shape[:, None]))
        good = kstwo.sf(gap_to_steps(cdf), maxima.shape[1]) >= LEVEL
        found[fitted] += np.where(good, beyond * spread[fitted], 0.0)
        fitted[fitted] = good
    return found, fitted


def _fit(below: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far a lies beyond the largest, b and c (each (B,)), for rows (B, n) of distances below the largest."""
    each = np.repeat(below, len(STARTS), axis=0)
    shape = np.tile(STARTS, len(below))
    # The wider the law's shape, the farther its end: so that the standard deviation fits at the start.
    beyond = 0.1 * shape
    start = np.stack([np.log(beyond), np.log(each.mean(axis=1) + beyond), np.log(shape)], axis=1)

    def loss(law: np.ndarray, rows: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            end, scale, c = (np.exp(law[:, :, i, None]) for i in range(3))
            s = np.log(each[rows][:, None] + end) - np.log(scale)
            value = (np.log(scale) - np.log(c) - (c - 1) * s + np.exp(c * s)).sum(axis=2)
            value = value + SHAPE_PENALTY * c[..., 0] ** 2
        return np.where(np.isfinite(value) & (c[..., 0] >= 1), value, np.inf)

    found, value = minimise(loss, start)
    best = value.reshape(len(below), -1).argmin(axis=1)
    law = np.exp(found.reshape(len(below), len(STARTS), 3)[np.arange(len(below)), best])
    return law[:, 0], law[:, 1], law[:, 2]
