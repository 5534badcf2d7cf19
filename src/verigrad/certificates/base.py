"""What a certificate is, and how honest it can be."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from verigrad.core.seeds import SampleGenerator


class Honesty(StrEnum):
    """SOUND: proved, up to what `assumptions` name. PROBABILISTIC: each radius holds with probability 1 − alpha.
    ESTIMATE: can be wrong, and is checked against attacks."""

    SOUND = "sound"
    PROBABILISTIC = "probabilistic"
    ESTIMATE = "estimate"


class Certified(NamedTuple):
    """What a certificate says of N samples.

    Args:
        radius: (N,) ≥ 0 and finite, in the certificate's norm and pixel units: no point nearer than this, in the box of
            valid images, is classified otherwise than as `y`. 0 where the prediction is wrong or nothing can be said.
        predicted: (N,) int64, the class of the classifier that is certified; -1 where it abstains.
        abstained: (N,) bool.
        alpha: the chance of error of each radius if the certificate is probabilistic, else None.
        honesty: its class.
        assumptions: what must hold for it, in one line each.
        forwards, backwards: (N,) int64 passes of each sample; passes shared by all are divided evenly, rounded up.
        facts: named numbers of the whole run, such as a fitted Lipschitz constant and its interval.
    """

    radius: Tensor
    predicted: Tensor
    abstained: Tensor
    alpha: float | None
    honesty: Honesty
    assumptions: tuple[str, ...]
    forwards: Tensor
    backwards: Tensor
    facts: dict[str, float]


class Certificate(Protocol):
    """A frozen dataclass: called with a classifier and all images of a run, x (N, C, H, W) in [0, 1] and y (N,).

    What it fits to data is fitted to these images; it makes batches of its own. The model is left as it was found.
    `subject` names the classifier that the radius is about: the model itself, or the model smoothed by noise. Where
    `fits_data` is True a radius depends on the other images too, so that they cannot be certified in parts.
    """

    @property
    def norm(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def fits_data(self) -> bool: ...

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> Certified: ...


@runtime_checkable
class Long(Protocol):
    """A certificate that takes long for each image: it says how many of them make a part of a run, and tells now and
    then how many are settled."""

    @property
    def part(self) -> int: ...

    def watched(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: SampleGenerator, told: Callable[[int], None]
    ) -> Certified: ...
