"""The fast adaptive boundary attack (Croce & Hein 2020, Algorithm 1): minimal, by projections onto hyperplanes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult, Probe, check_batch
from verigrad.attacks.hyperplane import length, way
from verigrad.attacks.nearest import Nearest
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin_targeted
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import L2, Linf, Threat

# Rounds of the final search, and the share of the radius at which restarts begin, in the released code.
SEARCHES, START_SHARE = 3, 0.5
# Which share of the margin of an error the final search leaves it with. With none, rounding would decide whether the
# point found is an error.
LEFT_OVER = 0.05
# A sparing run gives up, after a quarter of its steps, samples that are then farther from x than so many times eps.
LOOK_BACK, WITHIN = 0.25, 1.5


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Looks for the nearest error in Linf or L2 by walking along the decision boundary towards x.

    At a point z the difference of another class's logit and y's is linearised, and z and x are both projected onto the
    part in the box of the hyperplane where it is zero; of all classes the one with the nearest hyperplane is taken.
    With the ways d(z) and d(x) to these projections,

        z ← (1 - α) · (z + eta · d(z)) + α · (x + eta · d(x)),   α = min(alpha_max, ‖d(z)‖ / (‖d(z)‖ + ‖d(x)‖)),

    cut to the box; after an error, z ← x + beta · (z - x). At the end three steps of false position on the segment from
    x to the nearest error draw it nearer. The nearest error is returned if it lies inside the threat, and x else; the
    threat's size plays no part but in how far from x random starts may lie: half of it, or half the distance of
    the nearest error if that is less.

    With `targets` one class is aimed at in a run, as AutoAttack does with 9 (FAB-T). The passes of a sample are one
    forward on x; for each run and step K - 1 forwards and backwards, or one of each where there are targets, and one
    forward; four forwards for the final search, if there was an error; the judging pass. A sample that is
    misclassified at once takes the first and the last.

    Deviations: projections are exact also where slopes are small (the authors' code drops those below 1e-8); every
    point looked at counts as an error where it is one, not only those after a step; false position aims a little beyond
    the boundary; a score that is not finite has no hyperplane. Scores are compared with gradients, so a twin must not
    scale one of them, as `float64` does.

    A sparing attack looks only for errors inside the threat, which is ours: a run ends after a quarter of its steps
    where a sample's iterate is then more than 1.5 · eps away from x.

    Where predictions depend on batch-mates, an error was met beside the others' iterates of that step and need not
    stand in the final batch; no run ends early.

    Args:
        steps: projections in one run, from 1 up.
        restarts: runs (for each target); all but the first start at random around x.
        targets: 0 for all classes at once; from 1 up, one run towards each of so many classes, those with the highest
            logits on x first.
        alpha_max: the largest pull towards x, in [0, 1].
        beta: which share of the way from x is kept after an error, inside (0, 1).
        eta: how far beyond a hyperplane a step goes, from 1 up.
        sparing: whether runs without hope of an error inside the threat end early.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 0
    alpha_max: float = 0.1
    beta: float = 0.9
    eta: float = 1.05
    sparing: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise BadInput(f"'steps' and 'restarts' of FAB must be at least 1. Got {self.steps} and {self.restarts}.")
        if self.targets < 0:
            raise BadInput(f"The 'targets' of FAB must be 0, for all classes at once, or more. Got {self.targets}.")
        if not 0 <= self.alpha_max <= 1:
            raise BadInput(f"The 'alpha_max' of FAB must be in [0, 1]. Got {self.alpha_max}. The paper has 0.1.")
        if not 0 < self.beta < 1:
            raise BadInput(f"The 'beta' of FAB must be inside (0, 1). Got {self.beta}. The paper has 0.9.")
        if not 1 <= self.eta < 2:
            raise BadInput(f"The 'eta' of FAB must be in [1, 2). Got {self.eta}. The paper has 1.05.")

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        if not isinstance(threat, Linf | L2):
            raise BadInput(f"FAB is defined for Linf and L2. Got {threat}. Use 'fmn' for other threats.")
        with left_as_found(model):
            probe, nearest = Probe(model, y), Nearest(x, threat)
            rows = torch.arange(len(x), device=x.device)
            clean = probe.logits(x, rows)
            if len(rows):
                wrong = probe.wrong(clean, rows)
                nearest.note(x, rows, wrong)
                rows = rows if probe.coupled else rows[~wrong]
            for rivals in self._runs(clean, y) if len(rows) else ():
                for restart in range(self.restarts):
                    here = x[rows] if restart == 0 else _start(nearest, generator)[rows]
                    self._walk(probe, nearest, rows, here, rivals)
            _draw_nearer(probe, nearest, clean)
            return nearest.result(probe)

    def _runs(self, clean: Tensor, y: Tensor) -> list[list[Tensor]]:
        """For each run the classes (B,) whose hyperplanes are looked at, each sample's own."""
        others = clean.shape[1] - 1
        if self.targets == 0:
            return [[(y + k) % (others + 1) for k in range(1, others + 1)]]
        order = clean.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)
        return [[aim] for aim in order.unbind(1)[: min(self.targets, others)]]

    def _walk(self, probe: Probe, nearest: Nearest, rows: Tensor, here: Tensor, rivals: Sequence[Tensor]) -> None:
        """One run from here (R, C, H, W), whose errors nearest is told."""
        x = nearest.x[rows]
        look_back = math.ceil(LOOK_BACK * self.steps) if self.sparing and not probe.coupled else -1
        for step in range(self.steps):
            if step == look_back:
                near = nearest.threat.distance(here, x) <= WITHIN * nearest.threat.size
                rows, here, x = rows[near], here[near], x[near]
            if not len(rows):
                return
            border, wrong = _border(probe, _among(nearest.x, rows, here), rows, rivals, nearest.threat)
            nearest.note(here, rows, wrong)
            here = self._step(here, x, border, nearest.threat)
            wrong = probe.wrong(probe.logits(_among(nearest.x, rows, here), rows), rows)
            nearest.note(here, rows, wrong)
            here = torch.where(wrong.reshape(-1, 1, 1, 1), x + self.beta * (here - x), here)

    def _step(self, here: Tensor, x: Tensor, border: Border, threat: Threat) -> Tensor:
        behind = ((here.double() - x.double()) * border.slope).flatten(1).sum(1)
        d_here = way(here, border.slope, -border.value, threat)
        d_x = way(x, border.slope, behind - border.value, threat)
        far_here, far_x = (length(d, threat).clamp(min=1e-8) for d in (d_here, d_x))
        alpha = (far_here / (far_here + far_x)).clamp(max=self.alpha_max).reshape(-1, 1, 1, 1)
        mixed = (1 - alpha) * (here + self.eta * d_here) + alpha * (x + self.eta * d_x)
        return mixed.to(x.dtype).clamp(*threat.bounds)


class Border(NamedTuple):
    """Where a difference of logits vanishes, to first order: at d with `value` (R,) + ⟨`slope` (R, C, H, W), d⟩ = 0."""

    value: Tensor
    slope: Tensor


def _border(
    probe: Probe, batch: Tensor, rows: Tensor, rivals: Sequence[Tensor], threat: Threat
) -> tuple[Border, Tensor]:
    """Of batch[rows] the nearest of the linearised borders to the rivals, and which of them err."""
    nearest_yet, value, slope = batch.new_full((len(rows),), torch.inf), batch.new_zeros(len(rows)), None
    wrong = None
    for rival in rivals:
        classes = rival if probe.coupled else rival[rows]
        look = probe.ascend(batch, rows, lambda logits, y, classes=classes: margin_targeted(logits, y, classes))
        wrong = probe.wrong(look.logits, rows)
        size = threat.dual_norm(look.gradient).clamp(min=torch.finfo(batch.dtype).tiny)
        far = (look.value.abs() / size).to(batch.dtype)
        nearer = far < nearest_yet  # neither a NaN nor a zero slope is
        nearest_yet = torch.where(nearer, far, nearest_yet)
        value = torch.where(nearer, look.value.to(batch.dtype), value)
        flat = torch.zeros_like(look.gradient) if slope is None else slope
        slope = torch.where(nearer.reshape(-1, 1, 1, 1), look.gradient, flat)
    assert slope is not None
    assert wrong is not None
    return Border(value.double(), slope.double()), wrong


def _among(x: Tensor, rows: Tensor, here: Tensor) -> Tensor:
    """The whole batch with here (R, C, H, W) in its rows."""
    return here if len(rows) == len(x) else x.index_copy(0, rows, here)


def _start(nearest: Nearest, generator: SampleGenerator) -> Tensor:
    """A random point (B, C, H, W) of the sphere around x whose radius the class describes, cut to the box."""
    x, threat = nearest.x, nearest.threat
    if isinstance(threat, Linf):
        noise = generator.uniform(*x.shape[1:], low=-1, high=1, dtype=x.dtype)
    else:
        noise = generator.normal(*x.shape[1:], dtype=x.dtype)
    length = threat.distance(noise, torch.zeros_like(noise)).clamp(min=1e-300)
    scale = START_SHARE * nearest.distance.clamp(max=threat.size) / length
    return (x + scale.to(x.dtype).reshape(-1, 1, 1, 1) * noise).clamp(*threat.bounds)


def _draw_nearer(probe: Probe, nearest: Nearest, clean: Tensor) -> None:
    """False position between x, with its logits clean (B, K), and the nearest error: the paper's final search."""
    found = torch.isfinite(nearest.distance) & (nearest.distance > 0)
    rows = torch.arange(len(found), device=found.device) if probe.coupled else found.nonzero().squeeze(1)
    if not len(rows):
        return
    right, err, y = nearest.x[rows], nearest.x_adv[rows], probe.y[rows]
    z_right, z_err = clean[rows], probe.logits(nearest.x_adv, rows)
    for _ in range(SEARCHES):
        rival = z_err.scatter(1, y[:, None], -torch.inf).argmax(1)
        below, above = -margin_targeted(z_right, y, rival), margin_targeted(z_err, y, rival)
        share = (below + LEFT_OVER * above) / (below + above)
        share = torch.where((share >= 0) & (share <= 1), share, 1.0).reshape(-1, 1, 1, 1).to(err.dtype)
        between = right + share * (err - right)
        logits = probe.logits(_among(nearest.x, rows, between), rows)
        wrong = probe.wrong(logits, rows)
        nearest.note(between, rows, wrong)
        errs = wrong.reshape(-1, 1, 1, 1)
        right, err = torch.where(errs, right, between), torch.where(errs, between, err)
        z_right, z_err = torch.where(wrong[:, None], z_right, logits), torch.where(wrong[:, None], logits, z_err)
