"""Tables B.3, B.5 and B.6 of the gradient-regularization paper: gradients, the modulus ω, and certified errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from verigrad.certificates.gap import look
from verigrad.core.classifier import left_as_found
from verigrad.core.threat import L2
from verigrad.papers.gradient_regularization import B3, B5, B6
from verigrad.papers.gradient_regularization_measures import (
    ASCENT,
    BALL,
    cells,
    contradicted,
    facts,
    mean,
    nearest,
    omega,
    radii,
    uncertified,
)
from verigrad.papers.gradient_regularization_settings import SETTINGS, UNDEFENDED, Setting
from verigrad.papers.result import Finding, Measured, Result, Series, row_of
from verigrad.papers.workshop import Trial, Workshop

RADII = tuple(float(column.removesuffix(" %")) for column in B5.columns)
# Rows of table B.5, and the nets whose best each is: at every radius the least error of all noises.
PENALTY, COHEN, SALMAN = "l2 λ=1", "Cohen et al. 2019", "Salman et al. 2019"


def b3(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Gradient norms, and ω by random v as the paper has it and by ascent. Intervals of ω are the fit's 5 to 95 %."""
    at = SETTINGS[scale]
    found: dict[str, dict[str, Measured]] = {}
    for row in B3.rows():
        trial = at.certified(workshop, row[0])
        slopes = _slopes(trial)
        plain, ascent = (facts(trial, omega("l2", how)) for how in (BALL, ASCENT))
        here = {"gradient mean": mean(slopes), "gradient maximum": Measured(max(slopes), None, None, len(slopes))}
        here |= {f"omega {eps}": _omega(plain, eps, trial.n) for eps in ("0.5", "1.0")}
        here |= {f"omega {eps} by ascent": _omega(ascent, eps, trial.n) for eps in ("0.5", "1.0")}
        yield from cells(B3, row, here, at)
        found[row[0]] = here
    for column in ("gradient mean", "omega 0.5", "omega 0.5 by ascent"):
        least = found[UNDEFENDED][column].value
        others = {row: here[column].value for row, here in found.items() if row.startswith(("7-step", "l2 finite"))}
        yield Finding(
            B3.id,
            f"Adversarial training and the penalty by finite differences lower the {column}",
            all(value < least for value in others.values()),
            f"undefended {least:.3g}; " + ", ".join(f"{row} {value:.3g}" for row, value in others.items()),
        )


def _slopes(trial: Trial) -> list[float]:
    """‖∇ℓ‖₂ of each image; ℓ is of probabilities."""
    images, model, found = trial.images, trial.model, []
    device = trial.workshop.device
    with left_as_found(model):
        for x, y in zip(images.x.split(trial.batch), images.y.split(trial.batch), strict=True):
            seen = look(model, x.to(device), y.to(device), "probabilities")
            found.append(L2(eps=1.0).dual_norm(seen.gradient).double().cpu())
    return torch.cat(found).tolist()


def _omega(fitted: dict[str, float], eps: str, n: int) -> Measured:
    at = f"({float(eps):.6g})"
    return Measured(fitted[f"omega{at}"], fitted[f"omega_low{at}"], fitted[f"omega_high{at}"], n)


def b5(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Certified error by smoothing: of each net at every noise, and of nets trained with the noise they are shown."""
    at = SETTINGS[scale]
    rows = {
        UNDEFENDED: [(UNDEFENDED, sigma) for sigma in at.sigmas],
        PENALTY: [(PENALTY, sigma) for sigma in at.sigmas],
        COHEN: [(f"noise {sigma:g}", sigma) for sigma in at.sigmas],
    }
    told = f"{at.told}; {at.smoothed} images, {at.votes} noisy copies, alpha 0.001, the best of sigma "
    told += f"{', '.join(f'{sigma:g}' for sigma in at.sigmas)} at each radius, seed 0"
    errors: dict[str, list[float]] = {}
    for row, nets in rows.items():
        each = [_smoothed(workshop, at, *net) for net in nets]
        best = [min((uncertified(found, radius) for found in each), key=lambda one: one.value) for radius in RADII]
        yield from row_of(B5, (row,), dict(zip(B5.columns, best, strict=True)), band=5.0, protocol=told, reason=at.told)
        errors[row] = [one.value for one in best]
        yield Series(B5.id, "Certified by smoothing", row, RADII, tuple(errors[row]), "radius under L2", "error %")
    why = "adversarial training of the smoothed net is not built"
    yield from row_of(B5, (SALMAN,), dict.fromkeys(B5.columns), band=5.0, protocol=told, reason=why)
    yield from _orders(errors)


def _orders(errors: dict[str, list[float]]) -> Iterator[Finding]:
    for claim, better, worse in (
        ("The penalty certifies more than no defence", PENALTY, UNDEFENDED),
        ("Training with noise certifies more than the penalty", COHEN, PENALTY),
    ):
        pairs = list(zip(errors[better], errors[worse], strict=True))[:4]
        yield Finding(
            B5.id,
            f"{claim}, at radii up to 1",
            all(a < b for a, b in pairs),
            "; ".join(f"{a:.0f} against {b:.0f} %" for a, b in pairs),
        )


def _smoothed(workshop: Workshop, at: Setting, row: str, sigma: float) -> Sequence[float]:
    trial = workshop.trial(at.net(row), L2(eps=100.0), n=at.smoothed)
    return radii(trial, f"smoothing:sigma={sigma:g},n={at.votes}")


def b6(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Certified error by the omega-bound, with random v and by ascent, and what attacks contradict."""
    at = SETTINGS[scale]
    last: dict[str, float] = {}
    false: dict[str, int] = dict.fromkeys(("random v", "v by ascent"), 0)
    for row in B6.rows():
        trial = at.certified(workshop, row[0])
        near = nearest(at.attacked(workshop, row[0], "l2"), at.attacks["l2"])
        for (how, search), words in zip(((BALL, "random v"), (ASCENT, "v by ascent")), ("", " by ascent"), strict=True):
            found = radii(trial, omega("l2", how))
            errors = {column: uncertified(found, float(column.removesuffix(" %"))) for column in B6.columns}
            named = {column.replace(" %", f"{words} %"): one for column, one in errors.items()}
            yield from cells(B6, row, named, at)
            values = tuple(one.value for one in errors.values())
            x = tuple(float(column.removesuffix(" %")) for column in errors)
            yield Series(
                B6.id, f"Certified by the omega-bound, {search}", row[0], x, values, "radius under L2", "error %"
            )
            wrong = contradicted(found, near)
            false[search] += round(wrong.value * wrong.n / 100)
            if not words:
                last[row[0]] = values[0]
    yield Finding(
        B6.id,
        "At radius 0.25 the undefended net has nothing certified, and every other net something",
        last[UNDEFENDED] == 100.0 and all(value < 100.0 for row, value in last.items() if row != UNDEFENDED),
        ", ".join(f"{row} {value:.1f} %" for row, value in last.items()),
    )
    told = f"of {at.n * len(last)} images have an error nearer than their radius"
    random, ascent = false.values()
    yield Finding(B6.id, "The omega-bound with random v is wrong on some images", random > 0, f"{random} {told}")
    yield Finding(B6.id, "With v sought by ascent no attack contradicts it", ascent == 0, f"{ascent} {told}")
