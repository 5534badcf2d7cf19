"""What somebody reports, and how much an audit may spend on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from verigrad.attacks.base import Attack
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A robust accuracy and the attack behind it.

    Args:
        attack: the attack that the claim rests on; it is run again on the audited samples.
        accuracy: the stated robust accuracy in [0, 1]; None takes what `attack` measures here as the claim.
    """

    attack: Attack = field(default_factory=lambda: PGD(steps=20, keep="last"))
    accuracy: float | None = None

    def __post_init__(self) -> None:
        if self.accuracy is not None and not (math.isfinite(self.accuracy) and 0 <= self.accuracy <= 1):
            raise BadInput(
                f"The claimed accuracy must be a fraction in [0, 1]. Got {self.accuracy}. Divide a percentage by 100."
            )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much an audit tries. All counts are for each sample that an attack is given.

    Args:
        survivors: most survivors of the claim that each intervention gets, the first ones; of a batch-coupled model the
            first whole batches, and one at least. Escalation gets everything that is left.
        effort: by what factor the effort interventions multiply the steps of the claim's attack.
        restarts: random starts of the restart intervention.
        noise_draws: copies that the noise-averaged gradient averages.
        spsa_steps, spsa_samples: size of the gradient-free attack.
        spsa_survivors: the same as `survivors`, for the gradient-free attack.
        rounds: most rounds of escalation.
        first_steps: gradient steps of the first round, or the claim's attack's if it has more; every second round
            doubles them.
        patience: how many rounds in a row must break nothing new for the escalation to count as converged.
        health_samples: how many samples the health checks look at.
    """

    survivors: int = 200
    effort: int = 5
    restarts: int = 5
    noise_draws: int = 4
    spsa_steps: int = 20
    spsa_samples: int = 32
    spsa_survivors: int = 100
    rounds: int = 6
    first_steps: int = 50
    patience: int = 2
    health_samples: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise BadInput(f"The '{name}' of Budget must be a whole number from 1 up. Got {value!r}.")
        if self.rounds < self.patience:
            raise BadInput(
                f"The escalation of Budget needs at least as many 'rounds' as 'patience'. Got {self.rounds} and "
                f"{self.patience}."
            )
