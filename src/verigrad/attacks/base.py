"""What every attack is, and the one place where an attack touches the classifier.

An `Attack` is a frozen dataclass called with a classifier, a batch and a threat. It looks at the classifier through a
`Probe`, which counts the passes of each sample and keeps the batch dense: rows that are done are not evaluated again,
unless the classifier's predictions depend on batch-mates. Then the whole batch is evaluated each time, because leaving
a row out would change what is attacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.core.scores import Score
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


class Status(IntEnum):
    """What happened to one sample, the graver the higher. `ZERO_GRADIENT`: at some step there was nothing to climb."""

    DONE = 0
    ZERO_GRADIENT = 1
    NON_FINITE_GRADIENT = 2
    NON_FINITE_LOGITS = 3


class AttackResult(NamedTuple):
    """What an attack gives back, all for each sample of the batch.

    `x_adv` (B, C, H, W) is finite and inside the threat; `broken` (B,) says whether the classifier, shown `x_adv` as
    one batch, predicts another class than y; `distance` (B,) is in the threat's norm; `forwards` and `backwards` (B,)
    count passes; `status` (B,) holds `Status` codes.
    """

    x_adv: Tensor
    broken: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    status: Tensor


class Attack(Protocol):
    """A *budget* attack stays inside the threat; a *minimal* attack looks for the nearest error."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult: ...


class Steered(nn.Module):
    """A classifier that is judged by `model` and climbed along the gradient of `twin`.

    `same_forward` says that both give the same logits (only the backward differs), which saves one pass a step. `near`
    says that they are the same but for rounding: `model` is then asked only about the samples that err on `twin`.
    """

    def __init__(self, model: nn.Module, twin: nn.Module, *, same_forward: bool, near: bool = False) -> None:
        super().__init__()
        self.model = model
        self.twin = twin
        self.same_forward = same_forward
        self.near = near

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def check_batch(x: Tensor, y: Tensor, threat: Threat, generator: SampleGenerator) -> None:
    """Refuses what no attack can be run on. An empty batch is fine, and so is eps = 0.

    Raises:
        BadInput: unless x is (B, C, H, W) floating point, finite and inside the threat's box, and y and generator hold
            one label and one stream for each image.
    """
    n, (low, high) = len(x), threat.bounds
    if x.dim() != 4 or not x.is_floating_point():
        raise BadInput(f"An attack needs images (B, C, H, W) of floating point. Got {tuple(x.shape)} of {x.dtype}.")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise BadInput(f"An attack needs {n} labels of torch.int64, one an image. Got {tuple(y.shape)} of {y.dtype}.")
    if len(generator) != n:
        raise BadInput(f"An attack needs a generator of {n} streams, one an image. Got {len(generator)}.")
    if not bool(((x >= low) & (x <= high)).all()):
        got = f"Got values from {x.min().item():g} to {x.max().item():g}"
        raise BadInput(f"Images must be finite and lie in [{low:g}, {high:g}]. {got}. Normalise inside the classifier.")


class Ascent(NamedTuple):
    """One look at a classifier: its logits (R, K), the gradient (R, C, H, W) of the score, and the score (R,)."""

    logits: Tensor
    gradient: Tensor
    value: Tensor


@dataclass(frozen=True)
class _Parts:
    judge: nn.Module
    climb: nn.Module
    same_forward: bool
    near: bool


class Probe:
    """A classifier as an attack sees it: in eval mode, frozen, with the passes of each sample counted.

    Args:
        model: the classifier, or a `Steered` pair.
        y: (B,) labels of the whole batch.
    """

    def __init__(self, model: nn.Module, y: Tensor) -> None:
        steered = isinstance(model, Steered)
        given = (model.model, model.twin, model.same_forward, model.near) if steered else (model, model, True, False)
        self._parts = _Parts(*given)
        self.y = y
        self.coupled = batch_coupled(model)
        self.forwards = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.status = torch.zeros_like(self.forwards)

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """Logits (R, K) of x[rows], without gradient. x is the whole batch (B, C, H, W), rows (R,) rising indices."""
        if not len(rows):
            return x.new_zeros(0, 1)
        self._count(rows, self.forwards)
        with torch.no_grad():
            return self._note(self._own(self._parts.judge(self._seen(x, rows)), rows), rows)

    def queries(self, points: Tensor, rows: Tensor, *, at_once: int = 1024) -> Tensor:
        """Logits (R, Q, K) at Q points (R, Q, C, H, W) for each of rows (R,), without gradient; Q passes a sample.

        They are evaluated densely, at most `at_once` images in one batch, so that memory stays bounded. Only for
        classifiers without batch coupling: elsewhere each query is a whole batch, which is what `logits` is for.
        """
        self.forwards[rows] += points.shape[1]
        with torch.no_grad():
            flat = torch.cat([self._parts.judge(part) for part in points.flatten(0, 1).split(at_once)])
        logits = flat.reshape(*points.shape[:2], -1)
        self._mark(rows, ~torch.isfinite(logits).flatten(1).all(1), Status.NON_FINITE_LOGITS)
        return logits

    def ascend(self, x: Tensor, rows: Tensor, score: Score) -> Ascent:
        """Logits, score and the score's gradient at x[rows]. x is the whole batch, rows (R,) rising indices.

        Where predictions depend on batch-mates the scores of the whole batch are summed, so the gradient of a row
        holds its share in the scores of the others: that is what an attack on a batch computes.
        """
        if not len(rows):
            return Ascent(x.new_zeros(0, 1), x[:0], x.new_zeros(0))
        self._count(rows, self.forwards)
        self._count(rows, self.backwards)
        with torch.enable_grad():
            # A twin in double precision gets its input so: a gradient of 1e-60 would not outlive a cast back.
            precision = getattr(self._parts.climb, "input_dtype", x.dtype)
            x_in = self._seen(x, rows).detach().to(precision).requires_grad_(True)
            logits = self._parts.climb(x_in)
            value = score(logits, self.y if self.coupled else self._own(self.y, rows))
            gradient = _gradient(value.sum(), x_in)
        logits, value, gradient = (t.detach() for t in (logits, value, gradient))
        if self.coupled:
            logits, value, gradient = (self._own(t, rows) for t in (logits, value, gradient))
        top = gradient.flatten(1).abs().amax(1)  # one NaN or infinity makes it so
        finite = torch.isfinite(top)
        self._mark(rows, ~finite, Status.NON_FINITE_GRADIENT)
        self._mark(rows, top == 0, Status.ZERO_GRADIENT)
        gradient = torch.where(_column(finite), gradient, 0.0)
        if precision != x.dtype:
            top = torch.where(finite, top, 0.0).clamp(min=torch.finfo(precision).tiny)
            gradient = (gradient / _column(top)).to(x.dtype)  # its direction is kept
        return Ascent(self._judged(logits, x, rows), gradient, value)

    def _judged(self, logits: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """The model's logits at x[rows], given those of the twin."""
        if self._parts.same_forward:
            return self._note(logits, rows)
        if not self._parts.near:
            return self.logits(x, rows)
        doubtful = (logits.argmax(1) != self._own(self.y, rows)) | ~torch.isfinite(logits).all(1)
        if self.coupled and bool(doubtful.any()):
            return self.logits(x, rows)
        places = doubtful.nonzero().squeeze(1)
        return logits.index_copy(0, places, self.logits(x, rows[places]).to(logits.dtype)) if len(places) else logits

    def wrong(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(R,) bool. A prediction that is not finite is an error of the model, never a success of the attack."""
        return (logits.argmax(1) != self._own(self.y, rows)) & torch.isfinite(logits).all(1)

    def result(self, x_adv: Tensor, x: Tensor, threat: Threat) -> AttackResult:
        """Judges x_adv by one pass over the whole batch."""
        rows = torch.arange(len(x), device=x.device)
        logits = self.logits(x_adv, rows)
        broken = self.wrong(logits, rows) & threat.contains(x_adv, x)
        distance = threat.distance(x_adv, x)
        return AttackResult(x_adv, broken, distance, self.forwards, self.backwards, self.status)

    def _own(self, t: Tensor, rows: Tensor) -> Tensor:
        """t[rows] of a whole batch, without a copy where that is all of it."""
        return t if len(rows) == len(t) else t[rows]

    def _seen(self, x: Tensor, rows: Tensor) -> Tensor:
        """The batch that the classifier is shown."""
        return x if self.coupled else self._own(x, rows)

    def _count(self, rows: Tensor, passes: Tensor) -> None:
        if self.coupled or len(rows) == len(passes):
            passes += 1
        else:
            passes[rows] += 1

    def _note(self, logits: Tensor, rows: Tensor) -> Tensor:
        self._mark(rows, ~torch.isfinite(logits).all(1), Status.NON_FINITE_LOGITS)
        return logits

    def _mark(self, rows: Tensor, happened: Tensor, code: Status) -> None:
        """The gravest status stays: logits that are not finite outlive a later gradient that is not."""
        self.status[rows] = torch.maximum(self.status[rows], happened * int(code))


def _column(t: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1, 1)."""
    return t.reshape(-1, 1, 1, 1)


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """∂value/∂x; zeros where the classifier cut the graph, which is how a step without a derivative looks."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient
