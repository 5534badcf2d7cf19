"""The diverse inputs iterative fast gradient method, DI²-FGSM and M-DI²-FGSM (Xie et al. 2019, Eq. (3) to (6))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Ascent, AttackResult, Probe, check_batch
from verigrad.attacks.momentum import Climb, Keep, check_climb
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat

# The released code: 299 pixels become 299 to 329 of 330. Its steps of 1/255 are min(eps + 4, 1.25 eps) many in units of
# 1/255, which at its eps of 16 is 20 steps of 1.25 eps / 20.
RESIZE = 0.9
TRAVEL = 1.25


@dataclass(frozen=True, kw_only=True)
class DI2FGSM:
    """A budget attack that climbs the gradient through a random resizing T of its iterate:

        g ← momentum · g + ∇score(T(x_adv)) / ‖∇score(T(x_adv))‖₁,   x_adv ← Π(x_adv + step_size · steepest(g))

    With chance `probability` T shrinks the image to a random size from ⌊resize · side⌋ to side - 1 pixels and puts it
    in a random place on black; else T does nothing. The image keeps the side that the classifier wants. Coin, size and
    place are drawn anew for each sample and step.

    Deviations: the released code tosses one coin, and draws one size and place, for a batch and step, which makes a
    sample's result depend on its batch-mates; it enlarges by up to a tenth, since its classifiers take any side, so
    relative sizes are the same; it fills with zeros of images in [-1, 1], which is grey; it never puts the image at the
    far edge, which at one pixel's room leaves a single place. It attacks its own first prediction, not y. Under 'last',
    Linf and momentum 0 the rest is as there. With keep = 'best' a sample stops at its first error, for which its
    iterate is shown to the classifier once more wherever T changed it: at most 2 · steps forwards and `steps`
    backwards, and the judging pass; with 'last' at most `steps` of each.

    Where predictions depend on batch-mates, all are transformed at once, each by its own T, and judged at once.

    Args:
        steps: gradient steps, from 1 up.
        step_size: length of one step in the threat's norm; None means 1.25 · eps / steps, as in the released code.
        probability: of a transformation, in [0, 1].
        resize: the smallest side, as a share of the image's own, inside (0, 1). Non-square images keep their ratio.
        interpolation: 'nearest' as in the released code, or 'bilinear'.
        momentum: the decay factor μ, from 0 up: 0 is DI²-FGSM, 1 is M-DI²-FGSM.
        score: what is climbed: 'cross_entropy', 'margin' or 'dlr'.
        keep: 'best' takes the first iterate that errs and stops there; 'last' moves every sample through every step.
    """

    steps: int = 20
    step_size: float | None = None
    probability: float = 0.5
    resize: float = RESIZE
    interpolation: Literal["nearest", "bilinear"] = "nearest"
    momentum: float = 0.0
    score: str = "cross_entropy"
    keep: Keep = "best"

    def __post_init__(self) -> None:
        check_climb("DI2FGSM", self.steps, self.step_size, self.momentum, self.score, self.keep)
        if not 0 <= self.probability <= 1:
            raise BadInput(f"The 'probability' of DI2FGSM must be in [0, 1]. Got {self.probability}.")
        if not 0 < self.resize < 1:
            raise BadInput(f"The 'resize' of DI2FGSM must be inside (0, 1). Got {self.resize}. The paper has 0.9.")
        if self.interpolation not in ("nearest", "bilinear"):
            raise BadInput(f"The 'interpolation' of DI2FGSM must be nearest or bilinear. Got {self.interpolation!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        step_size = TRAVEL * threat.size / self.steps if self.step_size is None else self.step_size
        with left_as_found(model):
            probe = Probe(model, y)

            def look(here: Tensor, rows: Tensor) -> Ascent:
                return self._look(probe, here, rows, threat.bounds[0], generator)

            climb = Climb(threat, x, self.steps, step_size, self.momentum, self.keep)
            return probe.result(climb(probe, x, look), x, threat)

    def _look(self, probe: Probe, here: Tensor, rows: Tensor, black: float, generator: SampleGenerator) -> Ascent:
        """The gradient at here[rows] of the score of T(here), and, if errors are to be kept, the logits at here."""
        draw = generator.uniform(4, dtype=torch.float64)
        wanted = torch.arange(len(here), device=here.device) if probe.coupled else rows
        changed = draw[wanted, 0] < self.probability
        resizing = resizings(draw[wanted, 1:], here.shape[2:], self.resize, self.interpolation, here.dtype)
        shown = torch.where(changed.reshape(-1, 1, 1, 1), resizing.of(here[wanted], black), here[wanted])
        seen = probe.ascend(here.index_copy(0, wanted, shown), rows, SCORES[self.score])
        changed, resizing = (changed[rows], resizing.only(rows)) if probe.coupled else (changed, resizing)
        gradient = torch.where(changed.reshape(-1, 1, 1, 1), resizing.pulled_back(seen.gradient), seen.gradient)
        logits = seen.logits
        if self.keep == "best" and probe.coupled:
            logits = probe.logits(here, rows)
        elif self.keep == "best":
            places = changed.nonzero().squeeze(1)
            if len(places):
                logits = logits.index_copy(0, places, probe.logits(here, rows[places]))
        return Ascent(logits, gradient, seen.value)


class Resizing(NamedTuple):
    """A linear map of images (R, C, H, W), each sample's own: x ↦ down · x · acrossᵀ. Sums of a row are 1, or 0 where
    the canvas shows. `down` is (R, 1, H, H) and `across` (R, 1, W, W)."""

    down: Tensor
    across: Tensor

    def of(self, x: Tensor, black: float) -> Tensor:
        return black + self.down @ (x - black) @ self.across.mT

    def pulled_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to x, from that with respect to the resized x: the transposed map."""
        return self.down.mT @ gradient @ self.across

    def only(self, rows: Tensor) -> Resizing:
        return Resizing(self.down[rows], self.across[rows])


def resizings(
    draw: Tensor, sides: tuple[int, ...] | torch.Size, resize: float, interpolation: str, dtype: torch.dtype
) -> Resizing:
    """The resizings of R samples.

    Args:
        draw: (R, 3) in [0, 1): how large in the range allowed, how far down and how far across in the room left.
        sides: (H, W).
    """
    maps = (_along(draw[:, 0], draw[:, 1 + i], side, resize, interpolation) for i, side in enumerate(sides))
    return Resizing(*(one.to(dtype)[:, None] for one in maps))


def _along(size: Tensor, place: Tensor, side: int, resize: float, interpolation: str) -> Tensor:
    """(R, side, side) float64: which share each pixel of a line has in each pixel of its shrunk and shifted copy."""
    least = max(math.floor(resize * side), 1)
    length = least + (size * max(side - least, 1)).floor()[:, None]
    first = (place[:, None] * (side - length + 1)).floor()
    pixel = torch.arange(side, dtype=torch.float64, device=size.device)
    inside = (pixel >= first) & (pixel < first + length)
    # Pixel centres are at half-integers; nearest neighbours are taken as torch's and TensorFlow 1's do, at edges.
    if interpolation == "nearest":
        source = ((pixel - first) * side / length).floor()
    else:
        source = ((pixel - first + 0.5) * side / length - 0.5).clamp(0, side - 1)
    share = (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
    return torch.where(inside[:, :, None], share, 0.0)
