"""Interventions: change one thing of the claim's attack, attack its survivors again, count the witnesses it adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

from torch import nn

from verigrad.attacks.base import Attack
from verigrad.attacks.changes import Change, Float64, IdentityBackward, NoiseAveraged, Rescaled
from verigrad.attacks.solver_aware import BatchOfOne, FrozenGrid, OnTwin
from verigrad.attacks.spsa import SPSA
from verigrad.auditing.claim import Budget
from verigrad.models.twin import ode_blocks
from verigrad.solvers import Adjoint, BatchCoupled, Control, Direct, Gradient, PerSample
from verigrad.solvers.carrier import Carried


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """One change. `change` is None where the attack itself was changed; `survivors` bounds how many it gets."""

    name: str
    cause: str
    attack: Attack
    survivors: int
    change: Change | None = None


def interventions(
    attack: Attack,
    model: nn.Module,
    *,
    coupled: bool,
    random: bool,
    reach: float,
    budget: Budget,
    solves: Sequence[Carried] = (),
) -> list[Intervention]:
    """All that apply to this model and this attack, masking causes first.

    Args:
        attack: the claim's attack.
        coupled: whether predictions depend on batch-mates.
        random: whether repeats change the logits.
        reach: how far a typical pixel can move, in pixel units (`Threat.reach`).
        solves: the model's calls of torchdiffeq, if it is written on that.
    """
    changes: list[tuple[str, str, Change]] = []
    if differentiated_grid(model, solves):
        changes.append(("frozen grid", "grid", FrozenGrid()))
    if by_adjoint(model, solves):
        changes.append(("gradient of the steps", "adjoint", FrozenGrid()))
    if coupled:
        changes.append(("batch of one", "batch_coupling", BatchOfOne()))
    if getattr(attack, "score", "cross_entropy") == "cross_entropy":
        changes.append(("rescaled logits", "saturation", Rescaled()))
    changes += [
        ("identity backward", "no_derivative", IdentityBackward()),
        ("noise-averaged gradient", "shattering", NoiseAveraged(sigma=reach / 2, draws=budget.noise_draws)),
        ("float64", "precision", Float64()),
    ]
    if random:
        changes.append(("repeated draws", "randomness", NoiseAveraged(sigma=0.0, draws=2 * budget.noise_draws)))
    made = [
        Intervention(
            name=name,
            cause=cause,
            attack=OnTwin(attack=attack, change=change),
            survivors=budget.survivors,
            change=change,
        )
        for name, cause, change in changes
    ]
    made.append(
        Intervention(
            name="gradient-free",
            cause="misleading",
            attack=SPSA(steps=budget.spsa_steps, samples=budget.spsa_samples),
            survivors=budget.spsa_survivors,
        )
    )
    return made + _efforts(attack, budget)


def differentiated_grid(model: nn.Module, solves: Sequence[Carried] = ()) -> bool:
    """Whether some ODE block, or call of torchdiffeq, chooses its steps by the error and lets the gradient through
    that choice.
    """
    return any(
        isinstance(control, PerSample | BatchCoupled) and isinstance(gradient, Direct) and gradient.grid != "frozen"
        for control, gradient in _solved(model, solves)
    )


def by_adjoint(model: nn.Module, solves: Sequence[Carried] = ()) -> bool:
    """Whether some ODE block, or call of torchdiffeq, is differentiated by the continuous adjoint."""
    return any(isinstance(gradient, Adjoint) for _, gradient in _solved(model, solves))


def _solved(model: nn.Module, solves: Sequence[Carried]) -> list[tuple[Control, Gradient]]:
    blocks = [(block.solver.control, block.solver.gradient) for block in ode_blocks(model)]
    return blocks + [(solve.control, solve.gradient) for solve in solves]


def _efforts(attack: Attack, budget: Budget) -> list[Intervention]:
    """The same attack with another score, more steps, more restarts: what it has a field for."""
    known = {f.name for f in fields(cast(Any, attack))} if is_dataclass(attack) else set()
    more: list[tuple[str, str, Attack]] = []
    if getattr(attack, "score", "margin") != "margin":
        more.append(("margin score", "score", _with(attack, score="margin")))
    if {"steps", "step_size"} <= known:
        steps = budget.effort * cast(Any, attack).steps
        more.append((f"{steps} steps", "steps", _with(attack, steps=steps)))
    if {"restarts", "random_start"} <= known:
        restarts = _with(attack, restarts=budget.restarts, random_start=True)
        more.append((f"{budget.restarts} random starts", "restarts", restarts))
    return [Intervention(name=name, cause=cause, attack=one, survivors=budget.survivors) for name, cause, one in more]


def _with(attack: Attack, **fields_: object) -> Attack:
    return cast(Attack, replace(cast(Any, attack), **fields_))
