"""Auto-PGD (Croce & Hein 2020, Algorithm 1): projected ascent with momentum that chooses its own step sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.attacks.step_halving import ALPHA, RHO, begin, checkpoints
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import SCORES, TARGETED_SCORES, Score
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat


@dataclass(frozen=True, kw_only=True)
class AutoPGD:
    """A budget attack for Linf and L2, with momentum and a step size of its own for each sample.

        z = Π(x_k + η · steepest(∇ score)),   x_{k+1} = Π(x_k + α·(z - x_k) + (1 - α)·(x_k - x_{k-1})),   α = 0.75

    From η = 2·eps, a sample's η is halved at a checkpoint, and the sample goes on from its best point so far, if the
    score rose in less than 0.75 of the steps since the last checkpoint, or if neither η nor the best score changed in
    that time. A sample is done at its first error; one that never errs ends at its point of highest score.
    The passes of a sample are at most `steps` forwards and backwards and one forward for each start, one forward on x
    where there are targets, and the judging pass.

    As in the authors' code, a sample is put back to its best point *at* the checkpoint and not one step after it.
    Deviations: checkpoints lie at ⌈p_j · steps⌉, as the paper has it, where the code counts periods rounded down (equal
    at 100 steps); a start is uniform in the ball, where the code takes a point of its surface; the projection under L2
    is onto ball ∩ box exactly; each sample has its own random stream; a score or gradient that is not finite counts as
    the lowest and as zero.

    Where predictions depend on batch-mates, a sample that errs rests until its batch-mates' moves make it right again,
    and the last iterates are judged: best points were seen beside other iterates of the others.

    Args:
        steps: gradient steps of each start, from 1 up.
        score: what is climbed: 'cross_entropy', 'margin' or 'dlr'.
        targets: 0 climbs the score itself. From 1 up, the score's targeted form is climbed towards each of so many
            wrong classes in turn, those with the highest logits on x first; AutoAttack's APGD-T has 9 and 'dlr'.
        restarts: how many starts (for each target); only unbroken samples get another one, which is random.
        random_start: whether the first start (for each target) is random inside the threat.
    """

    steps: int = 100
    score: str = "cross_entropy"
    targets: int = 0
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise BadInput(f"The {name!r} of AutoPGD must be at least 1. Got {getattr(self, name)}.")
        if self.score not in SCORES:
            raise BadInput(f"The 'score' of AutoPGD must be one of {', '.join(SCORES)}. Got {self.score!r}.")
        if self.targets < 0:
            raise BadInput(f"The 'targets' of AutoPGD must be 0, for none, or more. Got {self.targets}.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf | L2):
            raise BadInput(f"AutoPGD is defined for Linf and L2. Got {threat}. Use 'pgd' for other threats.")
        with left_as_found(model):
            probe = Probe(model, y)
            x_adv, rows = x.clone(), torch.arange(len(x), device=x.device)
            aims, rows = self._aims(probe, x, rows)
            best = x.clone()
            best_value = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
            for number in range(len(aims) * self.restarts):
                if not len(rows):
                    break
                first = number % self.restarts == 0
                start = threat.sample(x, generator) if self.random_start or not first else x
                fresh = rows
                if probe.coupled and number > 0:
                    fresh = rows[~probe.wrong(probe.logits(x_adv, rows), rows)]
                x_adv[fresh] = start[fresh]
                rows, end, value = self._climb(probe, x_adv, x, rows, threat, aims[number // self.restarts])
                better = value > best_value[rows]
                best[rows[better]], best_value[rows[better]] = end[better], value[better]
            if not probe.coupled:
                x_adv[rows] = best[rows]
            return probe.result(x_adv, x, threat)

    def _aims(self, probe: Probe, x: Tensor, rows: Tensor) -> tuple[list[Tensor | None], Tensor]:
        """The target classes (B,) of each run in turn, None for the untargeted one, and the samples to be attacked."""
        if self.targets == 0:
            return [None], rows
        logits = probe.logits(x, rows)
        order = logits.scatter(1, probe.y[:, None], -torch.inf).argsort(1, descending=True) if len(rows) else logits
        runs = min(self.targets, logits.shape[1] - 1)
        return list(order.unbind(1)[:runs]), rows if probe.coupled else rows[~probe.wrong(logits, rows)]

    def _score(self, aim: Tensor | None, rows: Tensor) -> Score:
        if aim is None:
            return SCORES[self.score]
        return lambda logits, y: TARGETED_SCORES[self.score](logits, y, aim[rows])

    def _climb(
        self, probe: Probe, x_adv: Tensor, x: Tensor, rows: Tensor, threat: Threat, aim: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One start of x_adv[rows], which is written to. Returns the rows (R,) that never erred, their best points
        (R, C, H, W) and the scores (R,) there. Where the batch is coupled all rows are returned."""
        checks = checkpoints(self.steps)
        now = begin(x[rows], x_adv[rows], 2 * threat.size)
        for step in range(self.steps):
            look = probe.ascend(x_adv, rows, self._score(aim, rows))
            right, gradient, value = ~probe.wrong(look.logits, rows), look.gradient, look.value
            if not bool(right.all()):
                if not probe.coupled:
                    rows, gradient, value, now = rows[right], gradient[right], value[right], now.only(right)
                    right = right[right]
                if not bool(right.any()):
                    return rows, now.best, now.best_value
            now = now.seen(gradient, value)
            if step in checks:
                now, gradient = now.checked(gradient, RHO * checks[step], right)
            elif step == 0:
                now = now._replace(checked_value=now.best_value)
            now = now.moved(gradient, threat, right, ALPHA if step > 0 else 1.0)
            x_adv[rows] = now.here
        if not probe.coupled:
            logits = probe.logits(x_adv, rows)
            right, value = ~probe.wrong(logits, rows), self._score(aim, rows)(logits, probe.y[rows])
            now, rows = now.seen(now.best_gradient, value).only(right), rows[right]
        return rows, now.best, now.best_value
