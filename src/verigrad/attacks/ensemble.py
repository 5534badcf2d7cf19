"""The worst case over several attacks, sample by sample, and the standard ensemble of Croce and Hein (2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verigrad.attacks.autopgd import AutoPGD
from verigrad.attacks.base import Attack, AttackResult, Probe, check_batch
from verigrad.attacks.fab import FAB
from verigrad.attacks.square import Square
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat


def most_passes(attack: Attack) -> int:
    """How many passes of a sample an attack may take, read from its parameters; a measure for ordering, not a bound.

    With `queries`: queries · restarts. With `samples`: steps · (samples + 1). Else a forward and a backward for each of
    steps · restarts · targets. An attack that holds others costs what they cost together; one without any of these
    parameters counts as one step.
    """
    inner = getattr(attack, "attacks", None) or [held for held in [getattr(attack, "attack", None)] if held]
    if inner:
        return sum(map(most_passes, inner))
    starts = getattr(attack, "restarts", 1) * max(1, getattr(attack, "targets", 0))
    if hasattr(attack, "queries"):
        return getattr(attack, "queries", 0) * starts
    a_step = getattr(attack, "samples", 1) + 1
    return getattr(attack, "steps", 1) * a_step * starts


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """A sample is broken if any of `attacks` breaks it; each attack runs on those that the ones before it left.

    Passes add up over the attacks, and one judges the whole batch at the end. A sample that no attack breaks keeps the
    attempt of the first. Each attack has random streams of its own for each sample, whatever the others drew. Minimal
    attacks may stand in the list: what they find inside the threat counts.

    Where predictions depend on batch-mates every attack gets the whole batch. After each, three batches are at hand:
    the best so far, the attack's own, and the best so far with the attack's attempts where nothing was broken; the one
    with most errors goes on.

    Args:
        attacks: one or more.
        order: 'given', or 'cost': those with fewer `most_passes` first.
    """

    attacks: tuple[Attack, ...]
    order: Literal["given", "cost"] = "given"

    def __post_init__(self) -> None:
        if not self.attacks:
            raise BadInput("The 'attacks' of WorstCase must be one or more. Got (). For example (pgd(steps=20),fgsm).")
        if self.order not in ("given", "cost"):
            raise BadInput(f"The 'order' of WorstCase must be given or cost. Got {self.order!r}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        ordered = sorted(self.attacks, key=most_passes) if self.order == "cost" else self.attacks
        seeds = generator.bits(len(ordered)).unbind(1)
        with left_as_found(model):
            probe = Probe(model, y)
            x_adv, rows = x, torch.arange(len(x), device=x.device)
            broken = torch.zeros_like(y, dtype=torch.bool)
            for number, (attack, seed) in enumerate(zip(ordered, seeds, strict=True)):
                got = attack(model, x[rows], y[rows], threat, generator=SampleGenerator(seed[rows]))
                _add_passes(probe, got, rows)
                if number == 0:
                    x_adv, broken = got.x_adv, got.broken
                elif probe.coupled:
                    x_adv, broken = _most_errors(probe, x_adv, broken, got)
                else:
                    taken = rows[got.broken]
                    x_adv, broken = x_adv.index_copy(0, taken, got.x_adv[got.broken]), broken.index_fill(0, taken, True)
                if bool(broken.all()):
                    break
                if not probe.coupled:
                    rows = (~broken).nonzero().squeeze(1)
            return probe.result(x_adv, x, threat)


def _add_passes(probe: Probe, got: AttackResult, rows: Tensor) -> None:
    probe.forwards[rows] += got.forwards
    probe.backwards[rows] += got.backwards
    probe.status[rows] = torch.maximum(probe.status[rows], got.status)


def _most_errors(probe: Probe, x_adv: Tensor, broken: Tensor, got: AttackResult) -> tuple[Tensor, Tensor]:
    """Of three whole batches the one with most errors, and these; the earlier on a tie."""
    merged = torch.where(broken.reshape(-1, 1, 1, 1), x_adv, got.x_adv)
    rows = torch.arange(len(merged), device=merged.device)
    together = probe.wrong(probe.logits(merged, rows), rows)
    batches = ((x_adv, broken), (got.x_adv, got.broken), (merged, together))
    return max(batches, key=lambda batch: int(batch[1].sum()))


@dataclass(frozen=True, kw_only=True)
class StandardEnsemble:
    """AutoAttack's standard ensemble (Croce & Hein 2020, section 5) as a `WorstCase`, for Linf and L2.

    Auto-PGD on cross-entropy, Auto-PGD on the targeted DLR, FAB with targets, Square; the defaults are the authors'.
    Of all orders theirs is kept: it puts the cheap attacks that break most first, and a sample that nothing breaks
    costs the same in any. With fewer than four classes, where the targeted DLR is not defined, the targeted margin
    stands for it. A pass on x, which tells the classes, is counted.

    A sample that nothing breaks takes about 9,700 passes, half of them Square's. The sparing form, which is ours, lets
    FAB and Square give up samples without hope; what is left is then an upper bound by a weaker search.

    Args:
        steps: of both Auto-PGDs and of FAB.
        targets: wrong classes that Auto-PGD and FAB aim at.
        queries: of Square.
        sparing: whether FAB and Square give up samples without hope, by their own rules.
    """

    steps: int = 100
    targets: int = 9
    queries: int = 5000
    sparing: bool = False

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise BadInput(f"The 'targets' of StandardEnsemble must be at least 1. Got {self.targets}.")
        self.members(4)

    def members(self, classes: int) -> tuple[Attack, ...]:
        """The attacks for a classifier with so many classes, in the order in which they run."""
        return (
            AutoPGD(steps=self.steps),
            AutoPGD(steps=self.steps, score="dlr" if classes >= 4 else "margin", targets=self.targets),
            FAB(steps=self.steps, targets=self.targets, sparing=self.sparing),
            Square(queries=self.queries, sparing=self.sparing),
        )

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        with left_as_found(model):
            probe = Probe(model, y)
            classes = probe.logits(x, torch.arange(len(x), device=x.device)).shape[1]
        got = WorstCase(attacks=self.members(classes))(model, x, y, threat, generator=generator)
        return got._replace(forwards=got.forwards + probe.forwards)
