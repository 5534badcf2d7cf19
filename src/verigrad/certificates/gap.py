"""The loss of Proposition 2.2 of Finlay & Oberman 2021: ℓ(x) = max_{i≠c} f_i(x) − f_c(x), negative where x is right."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from verigrad.certificates.balls import Norm
from verigrad.certificates.extremes import Tail
from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import SampleGenerator

Outputs = Literal["probabilities", "logits"]
# Where the loss is looked at: at the images alone, at random points of the ball around each, at the end of one full
# step along the gradient, along an ascent.
Sampler = Literal["images", "ball", "gradient", "ascent"]


class Look(NamedTuple):
    """The classifier at R points: logits (R, K), ℓ (R,) and ∇ℓ (R, C, H, W)."""

    logits: Tensor
    value: Tensor
    gradient: Tensor


def gap(logits: Tensor, y: Tensor, on: Outputs) -> Tensor:
    """ℓ (R,) of the softmax outputs or of the logits (R, K) themselves."""
    return margin(logits.softmax(1) if on == "probabilities" else logits, y)


def look(model: nn.Module, x: Tensor, y: Tensor, on: Outputs) -> Look:
    """ℓ and its gradient at x: one forward and one backward pass of each sample."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        logits = model(point)
        value = gap(logits, y, on)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), point, allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    return Look(logits.detach(), value.detach(), gradient.detach())


def value_at(model: nn.Module, x: Tensor, y: Tensor, on: Outputs) -> Tensor:
    """ℓ (R,) at x, without its gradient: one forward pass of each sample."""
    with torch.no_grad():
        return gap(model(x), y, on)


def batches(model: nn.Module, n: int, batch: int) -> list[slice]:
    """Rows that are evaluated together; one by one where a prediction depends on batch-mates."""
    size = 1 if batch_coupled(model) else batch
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def believable(logits: Tensor, *others: Tensor) -> Tensor:
    """(R,) bool: everything of a sample is finite."""
    finite = torch.isfinite(logits).all(1)
    for other in others:
        finite = finite & torch.isfinite(other.flatten(1) if other.dim() > 1 else other[:, None]).all(1)
    return finite


def without(gradient: Tensor, rows: Tensor) -> Tensor:
    """gradient (R, C, H, W) with zeros in rows (R,) bool, so that nothing climbs along what is not finite."""
    return gradient.masked_fill(rows.reshape(-1, 1, 1, 1), 0.0)


def judged(logits: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """predicted and abstained of `Certified`: no class where something was not finite."""
    return torch.where(known, logits.argmax(1), -1), ~known


def check_settings(name: str, *, norm: str, on: str, tail: str = "gev", **counts: int) -> None:
    """Refuses a norm, an output or a tail that is not known, and counts below 1.

    Raises:
        BadInput: naming the setting.
    """
    for key, value, known in (
        ("norm", norm, get_args(Norm)),
        ("on", on, get_args(Outputs)),
        ("tail", tail, get_args(Tail)),
    ):
        if value not in known:
            raise BadInput(f"The {key!r} of {name} must be one of {', '.join(known)}. Got {value!r}.")
    for key, count in counts.items():
        if count < 1:
            raise BadInput(f"The {key!r} of {name} must be a whole number from 1 up. Got {count}.")


def check_images(x: Tensor, y: Tensor, generator: SampleGenerator) -> None:
    """Refuses what no certificate can be given for.

    Raises:
        BadInput: unless x is (N, C, H, W) in [0, 1], N ≥ 1, with one label and one stream for each image.
    """
    if x.dim() != 4 or not x.is_floating_point() or not len(x):
        raise BadInput(f"A certificate needs images (N, C, H, W) of floating point. Got {tuple(x.shape)} of {x.dtype}.")
    if len(y) != len(x) or len(generator) != len(x):
        raise BadInput(f"A certificate needs {len(x)} labels and streams. Got {len(y)} and {len(generator)}.")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise BadInput("Images must be finite and lie in [0, 1]. Normalise inside the classifier.")
