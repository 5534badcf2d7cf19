"""The course of one audit: health, the claim's attack, interventions, escalation, verdict; all is in the ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from torch import nn

from verigrad import catalog
from verigrad.attacks.base import Attack
from verigrad.attacks.changes import Change, IdentityBackward, NoiseAveraged
from verigrad.attacks.solver_aware import BatchOfOne, FrozenGrid
from verigrad.auditing.claim import Budget, Claim
from verigrad.auditing.escalation import converged, rounds, rule
from verigrad.auditing.foreign import Foreign
from verigrad.auditing.health import CHECKS, depends_on_batch, examine
from verigrad.auditing.hindsight import AWAY, away, blind
from verigrad.auditing.interventions import Intervention, by_adjoint, differentiated_grid, interventions
from verigrad.auditing.patient import Check, Patient
from verigrad.auditing.summary import Step, summarise
from verigrad.auditing.verdict import Facts, Judgement, Tried, findings, judge, material
from verigrad.core.classifier import device_of, predict
from verigrad.core.seeds import derive_seed
from verigrad.core.threat import L0, Threat
from verigrad.data.images import Images
from verigrad.evaluation.clean import record_clean
from verigrad.evaluation.look import fixed_draws
from verigrad.evaluation.run import Attempt, Subject, Wanted, attempts
from verigrad.ledger.store import Ledger

Progress = Callable[[str], None]


class _Escalation(NamedTuple):
    broken: list[int]
    converged: bool
    change: Change | None


@dataclass
class Course:
    """The state of one audit while it runs; everything of it can be had again from the ledger."""

    model: nn.Module
    images: Images
    threat: Threat
    claim: Claim
    budget: Budget
    batch: int
    seed: int
    executor: Executor | None
    ledger: Ledger
    tell: Progress
    title: str
    foreign: Foreign
    steps: list[Step] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        """Everything, in order. What the ledger holds already is not done again."""
        self.tell("health")
        checks = self._health()
        coupled = depends_on_batch(self.model, checks)
        subject = Subject(
            model=self.model,
            x=self.images.x,
            y=self.images.y,
            threat=self.threat,
            batch=self.batch,
            coupled=coupled,
            seed=self.seed,
        )
        self.tell("clean predictions")
        rows = record_clean(subject, self.ledger)
        correct = tuple(row.sample for row in rows if row.prediction == row.label)
        claimed = self._attempt(subject, "claim", "claim", self.claim.attack, correct)
        survivors = tuple(i for i in correct if i not in claimed.broken)
        ways = interventions(
            self.claim.attack,
            self.model,
            coupled=coupled,
            random=any(check.name == "randomness" and check.fired for check in checks),
            reach=self.threat.reach(self.images.x[:1]),
            budget=self.budget,
            solves=self.foreign.solves,
        )
        if any(check.name == "float64" and check.severity == "note" for check in checks):
            ways = [way for way in ways if way.cause != "precision"]  # the check found no float64 twin of this model
        tries = self._intervene(subject, ways, survivors) if survivors else []
        left = tuple(i for i in survivors if not any(i in done.broken for _, done in tries))
        climb = self._escalate(subject, tries, left)
        return self._conclude(subject, checks, correct, survivors, tries, climb)

    def _health(self) -> list[Check]:
        """The checks, on the first samples of the data; kept in the ledger."""
        known = self.ledger.notes("health")
        if all(check.__name__ in known for check in CHECKS):
            return [Check(**known[check.__name__]) for check in CHECKS]
        size = min(self.batch, self.budget.health_samples, len(self.images))
        device = device_of(self.model)
        x, y = self.images.x[:size].to(device), self.images.y[:size].to(device)
        with fixed_draws(derive_seed("health", self.seed), device):
            rows = (predict(self.model, x, batch=size).argmax(1) == y).nonzero().squeeze(1)
            patient = Patient(
                model=self.model, x=x, y=y, rows=rows, threat=self.threat, seed=self.seed, foreign=self.foreign
            )
            checks = examine(patient, done=lambda check: self.tell(f"health: {check.label}"))
        for check in checks:
            self.ledger.put_note("health", check.name, check.as_json())
        return checks

    def _attempt(self, subject: Subject, stage: str, name: str, attack: Attack, samples: tuple[int, ...]) -> Attempt:
        return self._attempts(subject, stage, [(name, attack, samples)])[0]

    def _attempts(
        self, subject: Subject, stage: str, plans: Sequence[tuple[str, Attack, tuple[int, ...]]]
    ) -> list[Attempt]:
        """Each is told as its turn comes, which workers that share them may be ahead of."""
        ends = list(accumulate(len(samples) for _, _, samples in plans))
        turns = deque(zip([0, *ends], plans, strict=False))

        def told(done: int, total: int) -> None:
            del total
            while turns and turns[0][0] <= done:
                _, (name, _, samples) = turns.popleft()
                self.tell(f"{stage}: {name} on {len(samples)} samples")

        # An intervention draws what the claim's attack drew, so that one thing is changed and not two.
        stream = None if stage == "escalation" else "claim"
        wanted = [
            Wanted(stage=stage, name=name, attack=attack, samples=samples, stream=stream)
            for name, attack, samples in plans
        ]
        made = attempts(subject, self.ledger, wanted, executor=self.executor, progress=told)
        self.steps += [
            Step(stage=stage, name=one.name, attack=catalog.describe(one.attack), attempt=done)
            for one, done in zip(wanted, made, strict=True)
        ]
        return made

    def _intervene(
        self, subject: Subject, ways: Sequence[Intervention], survivors: tuple[int, ...]
    ) -> list[tuple[Intervention, Attempt]]:
        plans = [(way.name, way.attack, self._chosen(subject, way, survivors)) for way in ways]
        return list(zip(ways, self._attempts(subject, "intervention", plans), strict=True))

    def _chosen(self, subject: Subject, way: Intervention, survivors: tuple[int, ...]) -> tuple[int, ...]:
        """The survivors that an intervention is tried on."""
        if not subject.coupled:
            return survivors[: way.survivors]
        # A batch that is begun is paid for whole, so its survivors are all taken.
        last = survivors[0] // self.batch + max(way.survivors // self.batch, 1)
        return tuple(i for i in survivors if i // self.batch < last)

    def _escalate(
        self, subject: Subject, tries: list[tuple[Intervention, Attempt]], left: tuple[int, ...]
    ) -> _Escalation:
        """Rounds on what is left, climbing on the change that added most witnesses."""
        change = self._best_change(tries)
        broken: list[int] = []
        with fixed_draws(derive_seed("classes", self.seed), device_of(self.model)):
            classes = int(predict(self.model, self.images.x[:1]).shape[1])
        pixelwise = isinstance(self.threat, L0)
        for one in rounds(self.claim.attack, change, self.budget, classes=classes, pixelwise=pixelwise):
            if converged(broken, len(left), self.budget):
                break
            done = self._attempt(subject, "escalation", one.name, one.attack, left)
            broken.append(len(done.broken))
            left = tuple(i for i in left if i not in done.broken)
        return _Escalation(broken, converged(broken, len(left), self.budget), change)

    def _best_change(self, tries: list[tuple[Intervention, Attempt]]) -> Change | None:
        """The change that added most witnesses, if that is more than noise; else what an adaptive solver asks for."""
        best = max(
            (
                (len(done.broken) / len(done.attempted), index)
                for index, (way, done) in enumerate(tries)
                if way.change is not None and material(len(done.broken), len(done.attempted))
            ),
            default=None,
        )
        if best is not None:
            return tries[best[1]][0].change
        hides = differentiated_grid(self.model, self.foreign.solves) or by_adjoint(self.model, self.foreign.solves)
        return FrozenGrid() if hides else None

    def _conclude(
        self,
        subject: Subject,
        checks: list[Check],
        correct: tuple[int, ...],
        survivors: tuple[int, ...],
        tries: list[tuple[Intervention, Attempt]],
        climb: _Escalation,
    ) -> dict[str, Any]:
        broken = frozenset(i for step in self.steps for i in step.attempt.broken)
        checks = [
            *checks,
            *blind(self.ledger, self.steps, frozenset(correct) - broken),
            *self._where_attacks_lead(subject, survivors, broken),
        ]
        fired = {check.name: check.severity for check in checks if check.fired}
        tried = [
            Tried(
                cause=way.cause,
                name=way.name,
                attempted=len(done.attempted),
                witnesses=len(done.broken),
                reachable=len(broken.intersection(done.attempted)),
            )
            for way, done in tries
        ]
        found = len(correct) - len(broken)
        causes = findings(tried, fired, labels=self._labels(subject.coupled))
        facts = Facts(
            n=len(self.images.y),
            measured=len(survivors),
            found=found,
            stated=self.claim.accuracy,
            fired=fired,
            answered=_answered(climb.change),
            converged=climb.converged,
        )
        judgement: Judgement = judge(facts, causes)
        summary = summarise(
            title=self.title,
            model=self.model,
            images=self.images,
            ledger=self.ledger,
            subject=subject,
            claim=self.claim,
            correct=correct,
            facts=facts,
            judgement=judgement,
            causes=causes,
            checks=checks,
            steps=self.steps,
            escalation={"converged": climb.converged, "rule": rule(self.budget)},
        )
        self.ledger.put_summary(summary)
        return summary

    def _where_attacks_lead(self, subject: Subject, survivors: tuple[int, ...], broken: frozenset[int]) -> list[Check]:
        """Health once more, kept in the ledger as the first time."""
        if known := self.ledger.notes(AWAY):
            return [Check(**value) for value in known.values()]
        asked = sorted(survivors, key=lambda i: (i in broken, i))[: self.budget.health_samples]
        if not asked or not self.threat.size:
            return []
        self.tell("health: where attacks lead")
        checks = away(subject, tuple(asked), self.foreign)
        for check in checks:
            self.ledger.put_note(AWAY, check.name, check.as_json())
        return checks

    def _labels(self, coupled: bool) -> dict[str, str]:
        """The grid's cause by its full name where one step size serves the whole batch."""
        return {"grid": "gradient through the batch-coupled step size"} if coupled else {}


def _answered(change: Change | None) -> frozenset[str]:
    """Fired checks that do not stand against `upheld`: the escalation used what repairs them."""
    answered = {"saturated_loss"}  # every escalation climbs the margin too
    if isinstance(change, FrozenGrid | BatchOfOne):
        answered |= {"grid_gradient", "cross_gradient"}
    if isinstance(change, IdentityBackward):
        answered |= {"zero_gradient", "finite_difference", "zero_gradient_in_attack", "finite_difference_in_attack"}
    if isinstance(change, NoiseAveraged):
        answered |= {"coherence", "finite_difference", "finite_difference_in_attack"}
    return frozenset(answered)
