"""Escalation: attacks grow until nothing more breaks by a stated rule, else the audit is "not converged"."""

from __future__ import annotations

from dataclasses import dataclass

from verigrad.attacks.base import Attack
from verigrad.attacks.changes import Change
from verigrad.attacks.greedy_pixels import GreedyPixels
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import OnTwin
from verigrad.auditing.claim import Budget


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round, and what it is called."""

    name: str
    attack: Attack


# The margin does not saturate; the ratio is free of the logits' scale; cross-entropy pushes every class at once.
SCORES_IN_TURN = ("margin", "dlr", "cross_entropy")


CANDIDATES = 16
"""Pixels that the greedy attack asks at once in its first round: enough to leave 3 of 100 where PGD leaves 68."""


def rounds(
    claimed: Attack, change: Change | None, budget: Budget, *, classes: int, pixelwise: bool = False
) -> list[Round]:
    """All rounds that may be run, none of PGD with less work than the claim's attack had.

    The change that added most witnesses is kept; the score changes from round to round, and steps double with every
    second one. Odd rounds attack the model itself, so that a twin that leads astray does not end the search. Under L0
    (`pixelwise`), which PGD is not made for, the greedy attack takes the even rounds.
    """
    scores = SCORES_IN_TURN if classes >= 3 else ("margin", "cross_entropy")
    first = max(budget.first_steps, int(getattr(claimed, "steps", 1)))
    starts = int(getattr(claimed, "restarts", 1))
    made = []
    for i in range(budget.rounds):
        if pixelwise and i % 2 == 0:
            greedy = GreedyPixels(candidates=CANDIDATES * 2 ** (i // 2))
            made.append(Round(name=f"round {i + 1}: greedy, {greedy.candidates} pixels asked", attack=greedy))
            continue
        attack = PGD(steps=first * 2 ** (i // 2), restarts=starts * (1 + i % 2), score=scores[i % len(scores)])
        on_twin = change is not None and i % 2 == 0
        name = f"round {i + 1}: {attack.steps} steps × {attack.restarts}, {attack.score}"
        name += " on the twin" if on_twin else ""
        made.append(Round(name=name, attack=OnTwin(attack=attack, change=change) if change and on_twin else attack))
    return made


def converged(broken: list[int], left: int, budget: Budget) -> bool:
    """The rule: nothing is left to break, or the last `patience` rounds broke nothing new."""
    return left == 0 or (len(broken) >= budget.patience and not any(broken[-budget.patience :]))


def rule(budget: Budget) -> str:
    """The rule as a sentence."""
    last = "the last round breaks" if budget.patience == 1 else f"{budget.patience} rounds in a row break"
    most = "one round" if budget.rounds == 1 else f"{budget.rounds} rounds"
    return (
        f"Converged when nothing is left to break or {last} nothing new; {most} at most, "
        "steps doubled with every second one, another score in each."
    )
