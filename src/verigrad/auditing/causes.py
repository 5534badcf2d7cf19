"""Why a claim's attack failed: the causes, and what of the health must agree before a masking cause is believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A *masking* cause lies in the model, an *effort* cause in the attack.

    `confirmed_by` names health checks; a masking cause counts only where one of them fired. A `general` cause says that
    gradients mislead but not why: any specific cause that is shown goes before it.
    """

    name: str
    label: str
    kind: Literal["masking", "effort"]
    confirmed_by: tuple[str, ...] = ()
    general: bool = False


CAUSES: dict[str, Cause] = {
    cause.name: cause
    for cause in (
        Cause(
            name="grid",
            label="gradient through the step-size controller",
            kind="masking",
            confirmed_by=("grid_gradient", "cross_gradient"),
        ),
        Cause(
            name="adjoint",
            label="gradient by the continuous adjoint",
            kind="masking",
            confirmed_by=("grid_gradient", "cross_gradient"),
        ),
        Cause(
            name="batch_coupling",
            label="batch-mates share one step size",
            kind="masking",
            confirmed_by=("cross_gradient",),
        ),
        Cause(name="saturation", label="loss saturation", kind="masking", confirmed_by=("saturated_loss",)),
        Cause(
            name="no_derivative",
            label="a step without a derivative",
            kind="masking",
            confirmed_by=("zero_gradient",),
        ),
        Cause(name="precision", label="float32 is not enough", kind="masking", confirmed_by=("float64",)),
        Cause(name="randomness", label="random predictions", kind="masking", confirmed_by=("randomness",)),
        Cause(
            name="shattering",
            label="shattered gradient",
            kind="masking",
            confirmed_by=("coherence", "finite_difference"),
        ),
        Cause(
            name="misleading",
            label="a gradient that misleads",
            kind="masking",
            confirmed_by=("zero_gradient", "finite_difference", "coherence", "finite_difference_in_attack"),
            general=True,
        ),
        Cause(name="score", label="the attack's score", kind="effort"),
        Cause(name="steps", label="too few steps", kind="effort"),
        Cause(name="restarts", label="too few restarts", kind="effort"),
    )
}
