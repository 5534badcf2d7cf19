"""What hides the gradient of a SONet: one thing changed at a time, which the paper has no table of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import torch

from verigrad.core.classifier import device_of, predict
from verigrad.core.threat import Linf
from verigrad.models.twin import twin
from verigrad.papers.result import Finding, Measured, Result, Series, compared
from verigrad.papers.sonet_nets import BAND, GAP, NO_GAP, net, on_twin, pgd
from verigrad.papers.sonet_settings import SETTINGS, Setting
from verigrad.papers.workshop import Net, Trial, Workshop
from verigrad.solvers import BatchCoupled, PerSample

ID = "sonet/interventions"
CHANNELS = "64"
GRADIENTS = {"all": None, "first": "initial-step", "frozen": "frozen-grid"}
BATCHES = {"100": None, "1": "batch-of-one"}
SCORES = ("cross_entropy", "margin")
TWIN = "fixed-steps:method=rk4,steps=4"

Row = tuple[str, ...]


def interventions(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Gradient mode × batch size × score, on several seeds; the fixed-step twin; batch-mates; accuracy against eps."""
    at = SETTINGS[scale]
    left: dict[Row, list[Measured]] = {}
    witnesses: list[tuple[int, int, int]] = []
    for seed in at.seeds:
        one = net(at, "SONet", CHANNELS, seed=seed)
        for row, found in _table(workshop, one, at).items():
            left.setdefault(row, []).append(found)
        witnesses.append(_standing(workshop, one, at))
    for row, found in left.items():
        columns = {f"seed {seed} %": value for seed, value in zip(at.seeds, found, strict=True)}
        for column, value in {**columns, "all seeds %": _pooled(found)}.items():
            yield compared(ID, row, column, None, value, band=0.0, protocol=_protocol(at))
    yield from _causes(left)
    yield from _mates(workshop, at, left, witnesses)
    yield from _curve(workshop, net(at, "SONet", CHANNELS), at)


def _protocol(at: Setting) -> str:
    seeds = ", ".join(map(str, at.seeds))
    return f"{at.protocol.removesuffix('seed 0')}seed{'s' * (len(at.seeds) > 1)} {seeds}"


def _table(workshop: Workshop, one: Net, at: Setting) -> Mapping[Row, Measured]:
    """One seed's rows. With batches of one the classifier too is solved image by image."""
    threat, steps = Linf(eps=at.linf), at.steps["PGD-20"]
    found: dict[Row, Measured] = {}
    for batch, change in BATCHES.items():
        trial = workshop.trial(one, threat, n=at.n, change=change)
        found["natural", f"batch {batch}", "", ""] = trial.natural()
        for gradient, score in product(GRADIENTS, SCORES):
            found["SONet", f"batch {batch}", gradient, score] = trial.surviving(_attack(threat, steps, gradient, score))
        every = (_attack(threat, steps, gradient, score) for gradient, score in product(GRADIENTS, SCORES))
        found["SONet", f"batch {batch}", "all of these", ""] = trial.surviving(*every)
    fixed = workshop.trial(one, threat, n=at.n, change=TWIN)
    plain, margin = pgd(threat, steps), pgd(threat, steps, "margin")
    found["natural", "fixed-step twin", "", ""] = fixed.natural()
    found["fixed-step twin", "any batch", "all", "cross_entropy"] = fixed.surviving(plain)
    found["fixed-step twin", "any batch", "all of these", ""] = fixed.surviving(plain, margin)
    return found


def _attack(threat: Linf, steps: int, gradient: str, score: str) -> str:
    plain, change = pgd(threat, steps, score), GRADIENTS[gradient]
    return plain if change is None else on_twin(plain, change)


def _pooled(found: list[Measured]) -> Measured:
    n = sum(one.n for one in found)
    return Measured.share(round(sum(one.value * one.n / 100 for one in found)), n)


def _causes(left: Mapping[Row, list[Measured]]) -> Iterator[Finding]:
    pooled = {row: _pooled(found).value for row, found in left.items()}
    shown = left["SONet", "batch 100", "all", "cross_entropy"]
    strongest = left["SONet", "batch 100", "all of these", ""]
    yield Finding(
        ID,
        "PGD-20 as released leaves at least 30 points more than the strongest attack, on every seed",
        all(a.value - b.value >= GAP for a, b in zip(shown, strongest, strict=True)),
        "; ".join(f"{a.value:.0f} % against {b.value:.0f} %" for a, b in zip(shown, strongest, strict=True)),
    )
    twins = left["fixed-step twin", "any batch", "all", "cross_entropy"]
    least = left["fixed-step twin", "any batch", "all of these", ""]
    natural = left["natural", "fixed-step twin", "", ""]
    yield Finding(
        ID,
        "The fixed-step twin, the same weights under four steps of RK4, has no such gap on any seed",
        all(a.value - b.value <= NO_GAP for a, b in zip(twins, least, strict=True)),
        "; ".join(
            f"{a.value:.0f} % against {b.value:.0f} % (natural {c.value:.0f} %)"
            for a, b, c in zip(twins, least, natural, strict=True)
        ),
    )
    start = pooled["SONet", "batch 100", "all", "cross_entropy"]
    own = "an image's own gradient too goes through the sizes of its steps"
    for words, row, why in (
        ("freezing the grid", ("SONet", "batch 100", "frozen", "cross_entropy"), ""),
        ("differentiating the first step only", ("SONet", "batch 100", "first", "cross_entropy"), ""),
        ("a margin in place of cross-entropy", ("SONet", "batch 100", "all", "margin"), ""),
        ("solving image by image", ("SONet", "batch 1", "all", "cross_entropy"), own),
    ):
        holds = start - pooled[row] > BAND
        evidence = f"{start:.0f} % left before, {pooled[row]:.0f} % after, all seeds together"
        claim = f"By itself {words} lets PGD-20 break more, by over {BAND:.0f} points"
        yield Finding(ID, claim, holds, evidence, "" if holds else why)


def _standing(workshop: Workshop, one: Net, at: Setting) -> tuple[int, int, int]:
    """Of the images that PGD with the grid frozen breaks in their batch: how many it broke, how many of these also err
    alone, and how many images are classified otherwise alone than among 100, without an attack."""
    trial = workshop.trial(one, Linf(eps=at.linf), n=at.n)
    made = trial.attempt(_attack(Linf(eps=at.linf), at.steps["PGD-20"], "frozen", "cross_entropy"))
    together, alone = (logits.argmax(1) for logits in _both_ways(trial))
    return len(made.broken), len(made.alone), int((together != alone).sum())


def _both_ways(trial: Trial) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, K) in batches of 100 and alone."""
    x = trial.images.x.to(device_of(trial.model))
    alone = twin(trial.model, control=lambda own: PerSample(**vars(own)) if isinstance(own, BatchCoupled) else own)
    return predict(trial.model, x, batch=100).cpu(), predict(alone, x, batch=100).cpu()


def _mates(
    workshop: Workshop, at: Setting, left: Mapping[Row, list[Measured]], witnesses: list[tuple[int, int, int]]
) -> Iterator[Result | Finding]:
    """What batch-mates change: predictions, logits, and which adversarial examples stand."""
    trial = workshop.trial(net(at, "SONet", CHANNELS), Linf(eps=at.linf), n=at.n)
    together, alone = _both_ways(trial)
    moved = float((together - alone).abs().amax())
    size = float(together.abs().amax())
    broken, standing, changed = (sum(column) for column in zip(*witnesses, strict=True))
    row = ("batch-mates", "", "", "")
    n = at.n * len(at.seeds)
    values = {
        "witnesses that err alone too %": Measured.share(standing, broken) if broken else None,
        "predictions that differ %": Measured.share(changed, n),
        "largest change of a logit": Measured(moved, None, None, at.n),
        "largest logit": Measured(size, None, None, at.n),
    }
    for column, value in values.items():
        if value is not None:
            yield compared(ID, row, column, None, value, band=0.0, protocol=_protocol(at))
    both = [_pooled(left["SONet", f"batch {batch}", "all", "cross_entropy"]).value for batch in BATCHES]
    yield Finding(
        ID,
        "The same attack on the same weights says something else in batches of one than of a hundred",
        abs(both[0] - both[1]) > BAND,
        f"PGD-20 as released leaves {both[0]:.0f} % in batches of 100 and {both[1]:.0f} % in batches of one; "
        f"{broken - standing} of {broken} witnesses of the frozen grid err only among their batch-mates; "
        f"a logit moves by up to {moved:.2g} of {size:.2g}",
    )


def _curve(workshop: Workshop, one: Net, at: Setting) -> Iterator[Series]:
    """Accuracy against eps under the released gradient and with the grid frozen."""
    names = {"PGD-20, released gradient": "all", "PGD-20, grid frozen": "frozen"}
    for name, gradient in names.items():
        y: list[float] = []
        for eps in at.curve:
            threat = Linf(eps=eps)
            trial = workshop.trial(one, threat, n=at.n)
            attack = _attack(threat, at.steps["PGD-20"], gradient, "cross_entropy")
            y += ([] if y else [trial.natural().value]) + [trial.surviving(attack).value]
        yield Series(ID, "accuracy against eps", name, (0.0, *at.curve), tuple(y), "eps (Linf)", "accuracy %")
