"""Whether an adversarial example stands is decided here, by forward passes, and never by the attack's word."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.scores import margin
from verigrad.core.threat import Threat
from verigrad.evaluation.look import look
from verigrad.ledger.schema import Outcome


class Judgement(NamedTuple):
    """All for each row of one chunk, on the processor.

    `x_adv` (B, C, H, W) float32, the clean image where the attack's was refused; `broken` (B,) whether the classifier
    errs on it; `alone` (B,) whether it also errs in a batch of one (as `broken` if predictions do not depend on
    batch-mates); `distance` (B,) float64 of what the attack gave, NaN if that is not finite; `logits` (B, K);
    `refused` the reason for each row, None where there is none; `forwards` passes of images spent on judging.
    """

    x_adv: Tensor
    broken: Tensor
    alone: Tensor
    distance: Tensor
    logits: Tensor
    refused: tuple[Outcome | None, ...]
    forwards: int


def judge(
    model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, threat: Threat, *, coupled: bool, stream: str
) -> Judgement:
    """Judges what an attack gave back for one chunk.

    x_adv is rounded to float32, since those bytes are what is stored. An image outside the threat or not finite is
    refused: it is no success, and its clean image takes its place, so that it cannot help its batch-mates either.

    A broken sample errs in the very batch in which it will be replayed: the whole chunk if predictions are coupled,
    otherwise the broken ones of the chunk by themselves, so that no rounding that depends on the batch makes a witness.

    Args:
        x_adv: (B, C, H, W), anything on any device.
        x, y: (B, C, H, W) float32 and (B,) int64 on the processor.
        stream: see `look`.
    """
    given = x_adv.detach().to("cpu", torch.float32)
    finite = torch.isfinite(given.flatten(1)).all(1)
    legal = finite & threat.contains(given, x)
    shown = torch.where(legal[:, None, None, None], given, x)
    refused = tuple(
        None if inside else Outcome.OUTSIDE_THREAT if real else Outcome.NON_FINITE_INPUT
        for inside, real in zip(legal.tolist(), finite.tolist(), strict=True)
    )
    (logits,) = look(model, [shown], stream=stream)
    broken, forwards = wrong(logits, y) & legal, len(x)
    if coupled:
        alone = broken.clone()
        rows = broken.nonzero().flatten()
        singles = look(model, (shown[row : row + 1] for row in rows.tolist()), stream=stream)
        if singles:
            alone[rows] = wrong(torch.cat(singles), y[rows])
        forwards += len(rows)
    else:
        broken, spent = _settled(model, shown, y, broken, logits, stream)
        alone, forwards = broken, forwards + spent
    distance = torch.where(finite, threat.distance(given, x), torch.nan)
    return Judgement(shown, broken, alone, distance, logits, refused, forwards)


def wrong(logits: Tensor, y: Tensor) -> Tensor:
    """(B,) bool: another class than y. A prediction that is not finite is the model's error, not a success."""
    return (logits.argmax(1) != y) & torch.isfinite(logits).all(1)


def predictions(logits: Tensor, y: Tensor) -> list[tuple[int, float | None]]:
    """For each row the class and the margin max_{j≠y} z_j - z_y; (-1, None) where the logits are not finite."""
    finite = torch.isfinite(logits).all(1).tolist()
    told = zip(logits.argmax(1).tolist(), margin(logits.double(), y).tolist(), finite, strict=True)
    return [(label, value) if real else (-1, None) for label, value, real in told]


def _settled(
    model: nn.Module, shown: Tensor, y: Tensor, broken: Tensor, logits: Tensor, stream: str
) -> tuple[Tensor, int]:
    """The broken rows that err as a batch of their own; `logits` gets theirs. It ends, because rows only ever leave."""
    spent = 0
    together = len(broken)
    while (rows := broken.nonzero().flatten()).numel() not in (0, together):
        (again,) = look(model, [shown[rows]], stream=stream)
        spent, together = spent + len(rows), len(rows)
        logits[rows] = again
        broken = broken.index_copy(0, rows, wrong(again, y[rows]))
    return broken, spent
