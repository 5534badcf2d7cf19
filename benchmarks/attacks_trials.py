"""What `attacks.py` measures: every question, verigrad's attack, then the same of each library that is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attack_peers import Libraries, Run, boundary, carlini_wagner_l2, pgd_linf, standard_ensemble
from torch import Tensor, nn

from verigrad.attacks.base import Attack
from verigrad.attacks.boundary import Boundary
from verigrad.attacks.carlini_wagner_l2 import CarliniWagnerL2
from verigrad.attacks.changes import BFloat16
from verigrad.attacks.ensemble import StandardEnsemble
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import OnTwin
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf, Threat

BATCH, FEW = 50, 25
FAR = 1e3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row. `passes` of the floor is what the attack's steps cost at least; 0 where it has no gradient steps."""

    question: str
    subject: str
    attack: str
    package: str
    run: Run
    passes: int = 0
    rounds: int = 3
    images: int = BATCH
    minimal: bool = False


def ours(attack: Attack, threat: type[Threat] = Linf) -> Run:
    """Under L2 as far as it likes."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        allowed = L2(eps=FAR) if threat is L2 else Linf(eps=eps)
        return attack(model, x, y, allowed, generator=seeded(seed, "benchmark", range(len(x)))).x_adv

    return run


def trials(libraries: Libraries) -> list[Trial]:
    """Every question, ours first, then whichever of the peers' rows can be run."""

    def peers(runs: dict[str, Run], like: Trial, rounds: int) -> list[Trial]:
        return [
            replace(like, package=name, run=run, rounds=rounds) for name, run in runs.items() if name in libraries.found
        ]

    def pgd(question: str, subject: str, steps: int, size: float, rounds: int, peer_rounds: int) -> list[Trial]:
        one = Trial(
            question=question, subject=subject, attack=f"PGD-{steps}, steps of {size:.2g}", package="verigrad",
            run=ours(PGD(steps=steps, step_size=size)), passes=steps, rounds=rounds,
        )  # fmt: skip
        return [one, *peers(pgd_linf(steps, size), one, peer_rounds)]

    def minimal(question: str, subject: str, name: str, run: Run, runs: dict[str, Run], **more: int) -> list[Trial]:
        one = Trial(question=question, subject=subject, attack=name, package="verigrad", run=run, minimal=True, **more)
        return [one, *peers(runs, one, one.rounds)]

    def ensemble(subject: str, images: int) -> list[Trial]:
        full, sparing = StandardEnsemble(), StandardEnsemble(sparing=True)
        one = Trial(
            question="standard ensemble", subject=subject, attack="100 steps, 9 targets, 5000 queries",
            package="verigrad", run=ours(full), images=images,
        )  # fmt: skip
        other = replace(one, attack=f"{one.attack}, sparing", run=ours(sparing))
        return [other, *peers(standard_ensemble(), one, one.rounds), replace(one, rounds=1)]

    bf16 = Trial(
        question="gradients in bfloat16", subject="brittle", attack="PGD-20, bf16", package="verigrad",
        run=ours(OnTwin(attack=PGD(steps=20, step_size=2 / 255), change=BFloat16())), passes=20,
    )  # fmt: skip
    cw = ours(CarliniWagnerL2(steps=100, search_steps=1, constant=1.0), L2)
    walk = ours(Boundary(queries=1000), L2)
    madry = 2 / 255  # the step of Madry et al.'s evaluation on CIFAR-10
    return [
        *pgd("none breaks", "random", 20, 1.25e-7, 7, 1),
        *pgd("brittle, long steps", "brittle", 20, madry, 3, 3),
        *pgd("brittle, short steps", "brittle", 20, 1 / 255, 3, 1)[:1],
        *[replace(one, images=FEW) for one in pgd("brittle, many long steps", "brittle", 100, madry, 3, 1)],
        *pgd("brittle, many short steps", "brittle", 100, 0.2 / 255, 3, 1)[:1],
        bf16,
        *pgd("trained against attacks", "digits", 20, 0.025, 3, 3),
        *minimal("Boundary", "digits", "1000 steps of foolbox, as many queries", walk, boundary(1000)),
        *minimal(
            "CW-L2", "brittle", "100 steps, c = 1", cw, carlini_wagner_l2(100, 1.0), passes=100, rounds=1, images=FEW
        ),
        *ensemble("digits", FEW),
        *ensemble("brittle", 20),
    ]


def equal_queries(trial: Trial, took: float) -> Trial:
    """Boundary with as many queries as foolbox took."""
    return replace(trial, run=ours(Boundary(queries=round(took)), L2))
