"""How a network does after each epoch on samples held out, clean and under a quick attack; and which epoch is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Threat
from verigrad.data.packed import unpacked
from verigrad.training.checkpoint import Epoch
from verigrad.training.distributed import Processes

# Wong et al. 2020: single-step training has collapsed where PGD-5 accuracy falls by more than this in an epoch.
COLLAPSE = 0.2


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A quick look at robustness: accuracy under PGD of a few steps from a random start, every step taken.

    It is a sign for the eye and no measurement: a longer attack finds more. Where no samples are held out, samples of
    the training show that robustness has broken down, as in Wong et al. 2020, but not which epoch is best.

    Args:
        threat: what the attack may do.
        samples: of those held out, from 1 up, the first in their order; else of those trained on.
        steps: of the attack, from 1 up (5 in Wong et al. 2020), each of eps / 4.
        seed: of the random starts, which are the same in every epoch.
    """

    threat: Threat
    samples: int = 512
    steps: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.steps < 1:
            raise BadInput(f"'samples' and 'steps' of Watch must be at least 1. Got {self.samples} and {self.steps}.")


class Accuracies(NamedTuple):
    """Clean, on the samples held out, and under the attack of a `Watch`. None where nothing was looked at."""

    clean: float | None
    robust: float | None


def validate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    held_out: Tensor,
    trained_on: Tensor,
    *,
    batch: int,
    watch: Watch | None,
    processes: Processes,
) -> Accuracies:
    """Accuracies of a model, each process looking at its part. x and y are all the data, on the model's device."""
    counts = torch.zeros(2, dtype=torch.float64, device=x.device)
    for ids in _shares(held_out, processes, batch):
        rows = ids.to(x.device)
        counts[0] += (predict(model, unpacked(x[rows]), batch=batch).argmax(1) == y[rows]).sum()
    seen = (held_out if len(held_out) else trained_on)[: watch.samples if watch is not None else 0]
    if watch is not None:
        # A threat of size zero has no step; any length does, since projection takes it back.
        attack = PGD(steps=watch.steps, step_size=watch.threat.size / 4 or 1.0, keep="last")
        for ids in _shares(seen, processes, batch):
            rows = ids.to(x.device)
            generator = seeded(watch.seed, "watch", ids.tolist(), device=x.device)
            counts[1] += (~attack(model, unpacked(x[rows]), y[rows], watch.threat, generator=generator).broken).sum()
    clean, robust = processes.total(counts).tolist()
    return Accuracies(clean / len(held_out) if len(held_out) else None, robust / len(seen) if len(seen) else None)


def _shares(ids: Tensor, processes: Processes, batch: int) -> Sequence[Tensor]:
    """This process's part, in batches; none if there is nothing in it."""
    own = ids[processes.rank :: processes.count]
    return own.split(batch) if len(own) else ()


def is_best(found: Accuracies, history: Sequence[Epoch]) -> bool:
    """Whether an epoch is better on the samples held out than all before it.

    By accuracy under the quick attack where there is one, and among equals by clean accuracy; else by that alone. So an
    adversarial training that overfits gives the weights of before (Rice et al. 2020), and no test sample has a part.
    """
    if found.clean is None:
        return False
    before = [(epoch.robust or 0.0, epoch.validation or 0.0) for epoch in history]
    return all((found.robust or 0.0, found.clean) > one for one in before)


def collapsed(history: Sequence[Epoch]) -> bool:
    """Whether robustness has just broken down: catastrophic overfitting (Wong et al. 2020, section 5.4).

    True where the accuracy under the quick attack fell by more than 0.2 from the last epoch but one to the last.
    """
    if len(history) < 2 or (before := history[-2].robust) is None or (now := history[-1].robust) is None:
        return False
    return before - now > COLLAPSE
