"""The worst case over attacks: who is attacked by what, what it costs, and what counts as broken."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from controls import Coupled, Linear, linear_problem
from torch import Tensor, nn

from verigrad.attacks.autopgd import AutoPGD
from verigrad.attacks.base import Attack, AttackResult, Probe, Status
from verigrad.attacks.ensemble import StandardEnsemble, WorstCase, most_passes
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import OnTwin
from verigrad.attacks.spsa import SPSA
from verigrad.attacks.square import Square
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.core.threat import L2, Linf, Threat

THREAT = Linf(eps=0.1)


def problem() -> tuple[Linear, Tensor, Tensor]:
    x, y, w = linear_problem(20, dtype=torch.float64)
    return Linear(w, float((x.flatten(1) @ w).quantile(0.6)) + 0.7), x, y


@dataclass(frozen=True, kw_only=True)
class Only:
    """Moves the samples whose grey in one pixel is in `greys` to a point given, and notes what it was shown."""

    greys: tuple[float, ...]
    to: float
    steps: int = 1
    seen: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        self.seen.append((len(x), tuple(generator.seeds.tolist())))
        probe = Probe(model, y)
        chosen = torch.isin(x[:, 0, 0, 0], torch.tensor(self.greys, dtype=x.dtype))
        got = probe.result(torch.where(chosen.reshape(-1, 1, 1, 1), self.to, x), x, threat)
        return got._replace(status=got.status + Status.ZERO_GRADIENT * chosen)


class Bright(nn.Module):
    """Class 1 where the image is brighter than 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x.flatten(1).mean(1) - 0.5
        return torch.stack([-lead, lead], dim=1)


GREYS = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
IMAGES = GREYS.reshape(4, 1, 1, 1).expand(4, 1, 2, 2).clone()
LABELS = torch.zeros(4, dtype=torch.int64)


def run(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: Threat = THREAT, ids=None) -> AttackResult:
    return attack(model, x, y, threat, generator=seeded(2, "worst", range(len(x)) if ids is None else ids))


def test_each_attack_sees_the_survivors_and_passes_add_up():
    first, second, third = Only(greys=(0.1,), to=0.9), Only(greys=(0.0, 0.1, 0.3), to=0.8), Only(greys=(0.2,), to=0.4)
    got = run(WorstCase(attacks=(first, second, third)), Bright(), IMAGES, LABELS, Linf(eps=1.0))
    assert [one.seen[0][0] for one in (first, second, third)] == [4, 3, 1]
    assert got.broken.tolist() == [True, True, False, True]
    assert got.x_adv[:, 0, 0, 0].tolist() == [0.8, 0.9, 0.2, 0.8]
    assert got.forwards.tolist() == [3, 2, 4, 3]
    assert got.status.tolist() == [1, 1, 1, 1]
    # The survivors keep their own streams, and no two attacks share one.
    seeds = [one.seen[0][1] for one in (first, second, third)]
    alone = Only(greys=(), to=0.0)
    run(WorstCase(attacks=(Only(greys=(), to=0.0), Only(greys=(), to=0.0), alone)), Bright(), IMAGES, LABELS)
    assert seeds[2] == (alone.seen[0][1][2],)
    assert len({seed for part in seeds for seed in part}) == 8


def test_nothing_runs_when_all_are_broken():
    late = Only(greys=(), to=0.0)
    run(WorstCase(attacks=(Only(greys=tuple(GREYS.tolist()), to=1.0), late)), Bright(), IMAGES, LABELS, Linf(eps=1.0))
    assert late.seen == []


def test_it_breaks_what_any_of_them_breaks():
    model, x, y = problem()
    members = (SPSA(steps=1, samples=2, step_size=0.1), FGSM(), PGD(steps=3))
    got = run(WorstCase(attacks=members), model, x, y)
    exact = model.w.abs() @ torch.ones(18, dtype=torch.float64) * 0
    gain = torch.where(model.w > 0, (1 - x.flatten(1)).clamp(max=0.1), x.flatten(1).clamp(max=0.1)) @ model.w.abs()
    breakable = gain + exact > model.threshold - x.flatten(1) @ model.w
    assert torch.equal(got.broken, breakable)
    assert got.broken.any()
    assert not got.broken.all()


def test_a_coupled_batch_stays_whole_and_the_batch_with_most_errors_wins():
    coupled = Coupled(Bright(), strength=1.0)
    first, second = Only(greys=(0.3,), to=1.0), Only(greys=(0.0, 0.1, 0.2), to=1.0)
    got = run(WorstCase(attacks=(first, second)), coupled, IMAGES, LABELS, Linf(eps=1.0))
    assert [one.seen[0][0] for one in (first, second)] == [4, 4]
    assert got.broken.all()
    assert got.forwards.tolist() == [4] * 4

    # Its own batch breaks three and the merged one none of them: it must not be lost to the merging.
    class Few(nn.Module):
        batch_coupled = True

        def forward(self, z: Tensor) -> Tensor:
            lead = z.flatten(1).mean(1) - 0.5
            lead = torch.where((lead > 0).sum() > 3, -1.0, lead)
            return torch.stack([-lead, lead], dim=1)

    kept = run(WorstCase(attacks=(first, second)), Few(), IMAGES, LABELS, Linf(eps=1.0))
    assert kept.broken.tolist() == [True, True, True, False]


def test_cost_is_read_from_the_parameters():
    assert most_passes(FGSM()) == 2
    assert most_passes(PGD(steps=20, restarts=3)) == 120
    assert most_passes(SPSA(steps=20, samples=32)) == 660
    assert most_passes(AutoPGD(steps=100, targets=9)) == 1800
    assert most_passes(Square(queries=5000)) == 5000
    assert most_passes(WorstCase(attacks=(FGSM(), PGD(steps=20)))) == 42
    cheap, dear = Only(greys=(), to=0.0, steps=1), Only(greys=(0.1,), to=0.9, steps=9)
    run(WorstCase(attacks=(dear, cheap), order="cost"), Bright(), IMAGES, LABELS, Linf(eps=1.0))
    assert len(cheap.seen[0][1]) == 4
    assert len(dear.seen[0][1]) == 4
    run(WorstCase(attacks=(dear, cheap)), Bright(), IMAGES, LABELS, Linf(eps=1.0))
    assert cheap.seen[1][0] == 3


def test_cost_looks_inside_attacks_that_hold_another():
    from verigrad.attacks.changes import Rescaled

    assert most_passes(OnTwin(attack=PGD(steps=7), change=Rescaled())) == 14


@pytest.mark.parametrize("threat", [THREAT, L2(eps=0.4)])
def test_the_standard_ensemble_is_the_worst_case_over_its_members(threat: Threat):
    model, x, y = problem()
    small = StandardEnsemble(steps=5, targets=2, queries=20)
    got = run(small, model, x, y, threat)
    plain = run(WorstCase(attacks=small.members(2)), model, x, y, threat)
    assert torch.equal(got.x_adv, plain.x_adv)
    assert torch.equal(got.forwards, plain.forwards + 1)
    assert got.broken.any()


def test_the_standard_ensemble_has_the_published_members():
    plain, targeted, fab, square = StandardEnsemble().members(10)
    assert (plain.steps, plain.score, plain.targets) == (100, "cross_entropy", 0)  # type: ignore[attr-defined]
    assert (targeted.steps, targeted.score, targeted.targets) == (100, "dlr", 9)  # type: ignore[attr-defined]
    assert (fab.steps, fab.targets) == (100, 9)  # type: ignore[attr-defined]
    assert square.queries == 5000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: WorstCase(attacks=()), "'attacks'"),
        (lambda: WorstCase(attacks=(FGSM(),), order="random"), "'order'"),  # type: ignore[arg-type]
        (lambda: StandardEnsemble(targets=0), "'targets'"),
        (lambda: StandardEnsemble(steps=0), "'steps'"),
    ],
)
def test_bad_values_are_refused(make, told: str):
    with pytest.raises(BadInput, match=told):
        make()
