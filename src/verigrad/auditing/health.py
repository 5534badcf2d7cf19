"""Health checks: minutes, no attack. Each says what was measured, against which limit, and whether it fired.

Rates are judged by the lower end of their 95 % Wilson interval. Starting limits: zero gradients 1 %, correlation with
finite differences 0.9, cosines 0.9 (0.3 over a step), repeated logits 1e-4 relative.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from verigrad.auditing.patient import Check, Patient, cosines, measured, median, not_applicable, share_check, unseen
from verigrad.core.classifier import batch_coupled, left_as_found
from verigrad.core.scores import cross_entropy, margin
from verigrad.core.seeds import seeded
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import Direct


def examine(patient: Patient, *, done: Callable[[Check], None] | None = None) -> list[Check]:
    """Every check, in order. The model is left as it was found."""
    found: list[Check] = []
    with left_as_found(patient.model):
        for check in CHECKS:
            result = measured(check(patient)) if len(patient.rows) else unseen(check.__name__)
            found.append(result)
            if done:
                done(result)
    return found


def non_finite(p: Patient) -> Check:
    """Logits or input gradients that are NaN or infinite: such a model cannot be judged."""
    with torch.no_grad():
        logits = p.model(p.x)[p.rows]
    bad = ~torch.isfinite(logits).all(1).cpu() | ~torch.isfinite(p.gradient(cross_entropy)).all(1)
    return share_check(
        "non_finite",
        "finite logits and gradients",
        bad,
        limit=0.0,
        severity="invalid",
        detail="{k} of {n} samples have a logit or an input gradient that is NaN or infinite.",
    )


def randomness(p: Patient) -> Check:
    """Five repeats of the same batch. The largest change of a logit, relative to the largest logit."""
    with torch.no_grad():
        logits = torch.stack([p.model(p.x)[p.rows].double() for _ in range(5)])
    spread = float((logits.amax(0) - logits.amin(0)).max() / logits.abs().max().clamp(min=1e-300))
    return Check(
        name="randomness",
        label="the same input gives the same logits",
        value=spread,
        limit="relative change at most 1e-4",
        fired=spread > 1e-4,
        severity="masking",
        detail=f"Over 5 repeats the logits change by {spread:.1e} of the largest logit.",
    )


def batch_mates(p: Patient) -> Check:
    """Logits of single samples against the same samples in their batch."""
    rows = p.rows[:32]
    with torch.no_grad():
        together, again = p.model(p.x)[rows].double(), p.model(p.x)[rows].double()
        alone = torch.cat([p.model(p.x[i : i + 1]) for i in rows.tolist()]).double()
    size = together.abs().max().clamp(min=1e-300)
    change = float((together - alone).abs().max() / size)
    noise = float((together - again).abs().max() / size)
    flips = int((together.argmax(1) != alone.argmax(1)).sum())
    return Check(
        name="batch_mates",
        label="batch-mates do not change the logits",
        value=change,
        limit="relative change at most 1e-4",
        fired=change > max(1e-4, 3 * noise),
        severity="note",
        detail=f"Alone against in a batch of {len(p.x)}: logits change by up to {change:.1e} of the largest; "
        f"{flips} of {len(rows)} predictions flip.",
    )


def cross_gradient(p: Patient) -> Check:
    """How much of the gradient at a sample comes from the losses of the others (cross-entropy, whole batch)."""
    rows = p.rows[:12]
    x = p.x.detach().clone().requires_grad_(True)
    losses = cross_entropy(p.model(x), p.y)
    if not losses.requires_grad or len(p.x) < 2:
        return not_applicable("cross_gradient", "no sample's loss has gradient on another", None, "share at most 1 %")
    whole = torch.autograd.grad(losses.sum(), x, retain_graph=True)[0]
    shares = []
    for i in rows.tolist():
        own = torch.autograd.grad(losses[i], x, retain_graph=True)[0][i]
        shares.append((whole[i] - own).norm() / whole[i].norm().clamp(min=1e-30))
    share = median(torch.stack(shares)) if shares else 0.0
    return Check(
        name="cross_gradient",
        label="no sample's loss has gradient on another",
        value=share,
        limit="median share at most 1 %",
        fired=share > 0.01,
        severity="masking",
        detail=f"Of the batch's gradient at a sample, {min(share, 99):.0%} (median of {len(rows)}) is due to the "
        "losses of other samples.",
    )


def grid_gradient(p: Patient) -> Check:
    """Cosine between the model's gradient and that of the steps which its solvers take, their sizes held constant."""
    label, limit = "the gradient is that of the solver's steps", "median cosine at least 0.9"
    if not ode_blocks(p.model) and not p.foreign.solves:
        return not_applicable("grid_gradient", label, None, limit, why=p.foreign.refused)
    frozen = p.gradient(cross_entropy, model=twin(p.model, gradient=Direct(grid="frozen")))
    cosine = median(cosines(p.gradient(cross_entropy), frozen))
    return Check(
        name="grid_gradient",
        label=label,
        value=cosine,
        limit=limit,
        fired=cosine < 0.9,
        severity="masking",
        detail=f"Median cosine of {cosine:.2f} between the model's gradient and the one with the grid frozen.",
    )


def saturated_loss(p: Patient) -> Check:
    """Samples whose cross-entropy is within rounding of zero in float32: its gradient is rounding, or nothing."""
    loss = p.scores(cross_entropy, p.x)
    return share_check(
        "saturated_loss",
        "the cross-entropy is not saturated",
        loss < 1e-6,
        limit=0.01,
        severity="masking",
        detail="{k} of {n} correct samples have a cross-entropy below 1e-6.",
    )


def zero_gradient(p: Patient) -> Check:
    """Samples where the gradient of the margin, which cannot saturate, is exactly zero."""
    return share_check(
        "zero_gradient",
        "the margin has a gradient",
        (p.gradient(margin) == 0).all(1),
        limit=0.01,
        severity="masking",
        detail="On {k} of {n} correct samples the gradient of the margin is exactly zero.",
    )


def _reach(p: Patient) -> float:
    """A step, in pixel units, over which an attack has to trust the gradient: a quarter of the ball in each pixel."""
    return max(min(p.threat.reach(p.x), 1.0) / 4, 1e-4)


def finite_difference(p: Patient) -> Check:
    """Correlation, over 16 random sign directions v, of ⟨∇ margin, v⟩ with central differences of the margin."""
    h = _reach(p) / 4
    correlation = median(_correlations(p, h))
    return Check(
        name="finite_difference",
        label="autograd agrees with finite differences",
        value=correlation,
        limit="median correlation at least 0.9",
        fired=correlation < 0.9,
        severity="masking",
        detail=f"Median correlation {correlation:.2f} over 16 directions, central differences of the margin at "
        f"±{h:.2g} in each pixel.",
    )


def finite_difference_in_attack(p: Patient) -> Check:
    """The same where attacks lead: p.x are iterates of an attack, and a mask may show at a part of them only."""
    h = _reach(p) / 4
    return share_check(
        "finite_difference_in_attack",
        "autograd agrees with finite differences where attacks lead",
        _correlations(p, h) < 0.5,
        limit=0.05,
        severity="masking",
        detail="At {k} of {n} iterates of an attack the margin's gradient has a correlation below 0.5 with central "
        f"differences at ±{h:.2g} in each pixel.",
    )


def _correlations(p: Patient, h: float) -> Tensor:
    """(R,) over 16 random sign directions v: of ⟨∇ margin, v⟩ with central differences at ±h in each pixel."""
    stream = seeded(p.seed, "health/finite_difference", range(len(p.x)), device=p.x.device)
    gradient = p.gradient(margin)
    said, seen = [], []
    for _ in range(16):
        v = stream.signs(*p.x.shape[1:], dtype=p.x.dtype)
        seen.append((p.scores(margin, p.x + h * v) - p.scores(margin, p.x - h * v)) / (2 * h))
        said.append((gradient * v[p.rows].flatten(1).double().cpu()).sum(1))
    return cosines(torch.stack(said, 1), torch.stack(seen, 1))


def coherence(p: Patient) -> Check:
    """Cosine between the margin's gradient at x and at a point one step along its sign: shattered gradients fail."""
    h = _reach(p)
    gradient = p.gradient(margin)
    step = torch.zeros_like(p.x)
    step[p.rows] = gradient.sign().reshape(-1, *p.x.shape[1:]).to(p.x)
    cosine = median(cosines(gradient, p.gradient(margin, x=p.x + h * step)))
    blind = bool((gradient == 0).all())
    return Check(
        name="coherence",
        label="the gradient keeps its direction over a step",
        value=None if blind else cosine,
        limit="median cosine at least 0.3",
        fired=not blind and cosine < 0.3,
        severity="masking",
        detail="The gradient is zero everywhere."
        if blind
        else f"Median cosine {cosine:.2f} between the margin's gradient at a sample and {h:.2g} along its sign.",
    )


def float64(p: Patient) -> Check:
    """Cosine between the margin's gradients in the model's precision and in double precision."""
    try:
        precise = copy.deepcopy(p.model).double()
        reference = p.gradient(margin, model=precise, x=p.x.double())
    except Exception:  # some models take float32 alone
        return not_applicable("float64", "float64 gives the same gradient", None, "median cosine at least 0.9")
    cosine = median(cosines(p.gradient(margin), reference))
    blind = bool((reference == 0).all())
    return Check(
        name="float64",
        label="float64 gives the same gradient",
        value=None if blind else cosine,
        limit="median cosine at least 0.9",
        fired=not blind and cosine < 0.9,
        severity="masking",
        detail="The gradient is zero in double precision too."
        if blind
        else f"Median cosine {cosine:.2f} between the margin's gradients in both precisions.",
    )


CHECKS: tuple[Callable[[Patient], Check], ...] = (
    non_finite,
    randomness,
    batch_mates,
    cross_gradient,
    grid_gradient,
    saturated_loss,
    zero_gradient,
    finite_difference,
    coherence,
    float64,
)


def depends_on_batch(model: nn.Module, checks: list[Check]) -> bool:
    """Whether predictions depend on batch-mates, by the model's own word or by measurement."""
    return batch_coupled(model) or any(check.name == "batch_mates" and check.fired for check in checks)
