"""Small made-up audits in real ledgers: every number of a summary is counted from the rows that the ledger holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verigrad.ledger.schema import ResultRow, SampleRow, UnitRow, WitnessRow
from verigrad.ledger.statistics import clopper_pearson, wilson
from verigrad.ledger.store import Ledger

CHECKS = (
    ("non_finite", "finite logits and gradients", 0.0, "lower 95 % limit of the share at most 0%", "invalid"),
    ("randomness", "the same input gives the same logits", 0.0, "relative change at most 1e-4", "masking"),
    ("batch_mates", "batch-mates do not change the logits", 0.0213, "relative change at most 1e-4", "note"),
    ("cross_gradient", "no sample's loss has gradient on another", 0.874, "median share at most 1 %", "masking"),
    (
        "grid_gradient",
        "the step-size controller does not turn the gradient",
        -0.03,
        "median cosine at least 0.9",
        "masking",
    ),
    (
        "saturated_loss",
        "the cross-entropy is not saturated",
        0.0,
        "lower 95 % limit of the share at most 1%",
        "masking",
    ),
    ("float64", "float64 gives the same gradient", None, "median cosine at least 0.9", "masking"),
)


@dataclass(frozen=True, kw_only=True)
class Try:
    """One attack of a scene: the share of the survivors it is given that it breaks."""

    stage: str
    name: str
    share: float
    spec: str = "pgd:keep=last,random_start=true,restarts=1,score=cross_entropy,step_size=none,steps=20"


@dataclass(frozen=True, kw_only=True)
class Scene:
    verdict: str
    title: str = "small conv net"
    reasons: tuple[str, ...] = ()
    tries: tuple[Try, ...] = ()
    causes: tuple[tuple[str, str, str, str, bool], ...] = ()  # name, label, kind, intervention, confirmed
    main_cause: str | None = None
    fired: tuple[str, ...] = ()
    stated: float | None = None
    coupled: bool = False
    converged: bool = True
    n: int = 200
    shape: tuple[int, int, int] = (1, 8, 8)
    eps: float = 0.12
    chunk: int = 100
    changes: dict[str, Any] = field(default_factory=dict)


GRID = "gradient through the batch-coupled step size"
TWIN = "on-twin:attack=pgd(keep=last,random_start=true,restarts=1,score=cross_entropy,step_size=none,steps=20),change="
ROUND = "round {}: {} steps × {}, {}"

SCENES: dict[str, Scene] = {
    "upheld": Scene(
        verdict="upheld",
        title="small conv net, PGD adversarial training",
        reasons=(
            "Of the samples that survive the claim's attack no attack broke any more, and the escalation converged.",
        ),
        tries=(
            Try(stage="claim", name="claim", share=0.21),
            Try(stage="intervention", name="rescaled logits", share=0.0, spec=TWIN + "rescaled"),
            Try(stage="intervention", name="identity backward", share=0.0, spec=TWIN + "identity-backward"),
            Try(stage="intervention", name="gradient-free", share=0.0, spec="spsa:samples=32,steps=20"),
            Try(stage="intervention", name="margin score", share=0.0),
            Try(stage="intervention", name="100 steps", share=0.0),
            Try(stage="escalation", name=ROUND.format(1, 50, 1, "margin"), share=0.0),
            Try(stage="escalation", name=ROUND.format(2, 50, 2, "dlr"), share=0.0),
        ),
    ),
    "overstated": Scene(
        verdict="overstated",
        title="small conv net",
        reasons=(
            "21 of 200 samples survive the claim's attack and are broken by another one inside the threat.",
            "The stated 62.5% lies above the 95 % interval [36.2%, 50.2%] of what was found.",
            "No masking cause was shown by intervention and by health: a better attack was enough.",
        ),
        stated=0.625,
        tries=(
            Try(stage="claim", name="claim", share=0.44),
            Try(
                stage="intervention",
                name="noise-averaged gradient",
                share=0.02,
                spec=TWIN + "noise-averaged(draws=4,sigma=0.03)",
            ),
            Try(stage="intervention", name="margin score", share=0.13),
            Try(stage="intervention", name="100 steps", share=0.08),
            Try(stage="intervention", name="5 random starts", share=0.09),
            Try(stage="escalation", name=ROUND.format(1, 50, 1, "margin"), share=0.03),
            Try(stage="escalation", name=ROUND.format(2, 50, 2, "dlr"), share=0.0),
            Try(stage="escalation", name=ROUND.format(3, 100, 1, "cross_entropy"), share=0.0),
        ),
        causes=(
            ("score", "the attack's score", "effort", "margin score", True),
            ("restarts", "too few restarts", "effort", "5 random starts", True),
            ("steps", "too few steps", "effort", "100 steps", True),
            ("shattering", "shattered gradient", "masking", "noise-averaged gradient", False),
        ),
        main_cause="score",
    ),
    "obfuscated": Scene(
        verdict="obfuscated",
        title="SONet-16, dopri5, one step size for the whole batch",
        reasons=(
            "125 of 200 samples survive the claim's attack and are broken by another one inside the threat.",
            f"The claim's attack was blinded: {GRID}.",
        ),
        tries=(
            Try(stage="claim", name="claim", share=0.35),
            Try(stage="intervention", name="frozen grid", share=0.96, spec=TWIN + "frozen-grid"),
            Try(stage="intervention", name="batch of one", share=0.93, spec=TWIN + "batch-of-one"),
            Try(stage="intervention", name="rescaled logits", share=0.02, spec=TWIN + "rescaled"),
            Try(stage="intervention", name="gradient-free", share=0.41, spec="spsa:samples=32,steps=20"),
            Try(stage="intervention", name="margin score", share=0.05),
            Try(stage="intervention", name="100 steps", share=0.11),
            Try(stage="escalation", name=ROUND.format(1, 50, 1, "margin") + " on the twin", share=0.5),
            Try(stage="escalation", name=ROUND.format(2, 50, 2, "dlr"), share=0.0),
            Try(stage="escalation", name=ROUND.format(3, 100, 1, "cross_entropy") + " on the twin", share=0.0),
        ),
        causes=(
            ("grid", GRID, "masking", "frozen grid", True),
            ("batch_coupling", "batch-mates share one step size", "masking", "batch of one", True),
            ("no_derivative", "a step without a derivative", "masking", "gradient-free", False),
            ("steps", "too few steps", "effort", "100 steps", True),
        ),
        main_cause="grid",
        fired=("batch_mates", "cross_gradient", "grid_gradient"),
        coupled=True,
    ),
    "undecided": Scene(
        verdict="undecided",
        title="small conv net behind random noise",
        reasons=(
            "Predictions are random: a witness found on one draw need not stand on the next.",
            "The escalation did not converge: its last rounds still broke samples.",
        ),
        tries=(
            Try(stage="claim", name="claim", share=0.3),
            Try(
                stage="intervention", name="repeated draws", share=0.1, spec=TWIN + "noise-averaged(draws=8,sigma=0.0)"
            ),
            Try(stage="escalation", name=ROUND.format(1, 50, 1, "margin"), share=0.2),
            Try(stage="escalation", name=ROUND.format(2, 50, 2, "dlr"), share=0.1),
        ),
        causes=(("randomness", "random predictions", "masking", "repeated draws", True),),
        fired=("randomness",),
        converged=False,
        n=60,
        shape=(3, 32, 32),
        eps=8 / 255,
    ),
    "bare": Scene(verdict="upheld", title="a model on which nothing was tried", n=12, stated=0.9),
    "hostile": Scene(
        verdict="overstated",
        title="<script>alert(1)</script> & \"'><img src=x onerror=alert(2)>",
        reasons=("</li><b onclick=alert(3)>reason</b>",),
        tries=(
            Try(stage="claim", name="claim", share=0.4),
            Try(
                stage="intervention", name="</title><script>alert(4)</script>", share=0.5, spec="<svg onload=alert(5)>"
            ),
        ),
        causes=(("steps", "<i>too few</i>", "effort", "</title><script>alert(4)</script>", True),),
        main_cause="steps",
        fired=("non_finite",),
        changes={"versions": {"verigrad": "0.1.0", "<u>torch</u>": "<u>2</u>"}},
    ),
}


def build(folder: Path, scene: Scene) -> Path:
    """Writes FOLDER/ledger.sqlite with the scene's samples, units, witnesses and summary."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 10, scene.n)
    wrong = rng.random(scene.n) < 0.02
    images = _images(rng, labels, scene.shape)
    samples = [
        SampleRow(i, int(y), int((y + 1) % 10 if bad else y), round(float(m if bad else -m), 4))
        for i, (y, bad, m) in enumerate(zip(labels, wrong, rng.gamma(3, 2, scene.n), strict=True))
    ]
    identity = {
        "model": "sonets.zoo:build",
        "weights": "",
        "data": "digits",
        "n": scene.n,
        "seed": 0,
        "budget": {"rounds": 6},
    }
    with Ledger.create_or_resume(folder / "ledger.sqlite", {**identity, "versions": _VERSIONS}) as ledger:
        ledger.put_samples(samples, list(images))
        attacks, broken = _attack(ledger, rng, scene, samples, images)
        summary = _summary(ledger, scene, samples, attacks, broken)
        ledger.put_summary({**summary, **scene.changes})
    return folder


_VERSIONS = {"verigrad": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}


def _images(rng: np.random.Generator, labels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Soft blobs whose place tells the class: pictures in which something can be seen."""
    _, height, width = shape
    v, u = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    angle = 2 * np.pi * labels / 10 + rng.normal(0, 0.1, len(labels))
    cx, cy = 0.5 + 0.28 * np.cos(angle), 0.5 + 0.28 * np.sin(angle)
    blob = np.exp(-((u - cx[:, None, None]) ** 2 + (v - cy[:, None, None]) ** 2) / 0.03)
    tint = rng.uniform(0.4, 1, (len(labels), shape[0], 1, 1))
    return np.clip(blob[:, None] * tint + rng.uniform(0, 0.1, (len(labels), *shape)), 0, 1).astype(np.float32)


def _attack(
    ledger: Ledger, rng: np.random.Generator, scene: Scene, samples: list[SampleRow], images: np.ndarray
) -> tuple[list[dict[str, Any]], set[int]]:
    broken: set[int] = set()
    survivors: list[int] = [row.sample for row in samples if row.prediction == row.label]
    correct, by_claim, attacks = len(survivors), 0, []
    for number, one in enumerate(scene.tries):
        given = [i for i in survivors if one.stage != "escalation" or i not in broken]
        hit = {i for i in given if rng.random() < one.share}
        for chunk in range(0, len(given), scene.chunk):
            _record(
                ledger,
                rng,
                scene,
                one,
                number,
                chunk // scene.chunk,
                given[chunk : chunk + scene.chunk],
                hit,
                samples,
                images,
            )
        new = hit - broken
        broken |= hit
        if one.stage == "claim":
            by_claim = len(hit)
            survivors = [i for i in survivors if i not in hit]
        alone = len(broken) if one.stage == "escalation" else len(hit) + (by_claim if one.stage != "claim" else 0)
        attacks.append(
            {
                "stage": one.stage,
                "name": one.name,
                "attack": one.spec,
                "attempted": len(given),
                "broken": len(hit),
                "added": len(new),
                "accuracy": (correct - alone) / scene.n,
                "remaining": (correct - len(broken)) / scene.n,
                "forwards": 21 * len(given),
                "backwards": 20 * len(given),
                "seconds": round(0.031 * len(given), 3),
            }
        )
    return attacks, broken


def _record(
    ledger: Ledger,
    rng: np.random.Generator,
    scene: Scene,
    one: Try,
    number: int,
    chunk: int,
    ids: list[int],
    hit: set[int],
    samples: list[SampleRow],
    images: np.ndarray,
) -> None:
    key = f"{number:02d}-{chunk:03d}"
    unit = UnitRow(
        key, 1000 * number + chunk, one.stage, one.name, one.spec, chunk, 0, len(ids), 21 * len(ids), 20 * len(ids), 0.1
    )
    results, witnesses = [], []
    for i in ids:
        other = int((samples[i].label + rng.integers(1, 10)) % 10)
        results.append(
            ResultRow(key, i, i in hit, scene.eps, other if i in hit else samples[i].label, 0.1, "done", 21, 20)
        )
        if i in hit:
            noise = scene.eps * rng.choice([-1.0, 1.0], scene.shape)
            x_adv = np.clip(images[i] + noise, 0, 1).astype(np.float32)
            alone = not scene.coupled or bool(rng.random() < 0.8)
            witnesses.append(WitnessRow(key, i, other, float(np.abs(x_adv - images[i]).max()), alone, x_adv))
    ledger.record(unit, results, witnesses)


def _summary(
    ledger: Ledger, scene: Scene, samples: list[SampleRow], attacks: list[dict[str, Any]], broken: set[int]
) -> dict[str, Any]:
    n = scene.n
    correct = sum(row.prediction == row.label for row in samples)
    found = correct - len(broken)
    measured = correct - (attacks[0]["broken"] if attacks else 0)
    claimed = scene.stated if scene.stated is not None else measured / n
    alone = {witness.sample for witness in ledger.witnesses() if witness.alone}
    return {
        "format": 1,
        "title": scene.title,
        "model": {"ref": "sonets.zoo:build", "parameters": 41_258},
        "data": {"ref": "digits", "n": n, "classes": 10, "shape": list(scene.shape)},
        "threat": f"linf:{scene.eps:.4g}",
        "batch": scene.chunk,
        "batch_coupled": scene.coupled,
        "verdict": scene.verdict,
        "reasons": list(scene.reasons),
        "clean": correct / n,
        "claimed": claimed,
        "claim": {
            "stated": scene.stated,
            "attack": Try(stage="claim", name="claim", share=0).spec,
            "measured": measured / n,
        },
        "found": found / n,
        "found_alone": (correct - len(alone)) / n if scene.coupled else None,
        "gap": claimed - found / n,
        "n": n,
        "interval": list(clopper_pearson(found, n)),
        "gap_interval": list(wilson(measured - found, n)),
        "main_cause": scene.main_cause,
        "causes": [_cause(cause, attacks) for cause in scene.causes],
        "attacks": attacks,
        "health": [_check(check, scene) for check in CHECKS] if scene.tries else [],
        "escalation": {
            "converged": scene.converged,
            "rule": "Converged when nothing is left to break or 2 rounds in a row break nothing new; at most 6 rounds.",
            "rounds": [
                {key: attack[key] for key in ("name", "attempted", "broken")}
                for attack in attacks
                if attack["stage"] == "escalation"
            ],
        },
        "errors": {"non_finite_logits": 0, "non_finite_gradients": 0},
        "identity": ledger.identity,
        "versions": _VERSIONS,
        "seal": ledger.seal(),
    }


def _cause(cause: tuple[str, str, str, str, bool], attacks: list[dict[str, Any]]) -> dict[str, Any]:
    name, label, kind, intervention, confirmed = cause
    tried = next(attack for attack in attacks if attack["name"] == intervention)
    k, n = tried["broken"], tried["attempted"]
    evidence = f"{intervention} breaks {k} of the {n} survivors it was tried on"
    ending = (
        "." if kind == "effort" else "; health agrees (cross_gradient)." if confirmed else "; no health check agrees."
    )
    return {
        "name": name,
        "label": label,
        "kind": kind,
        "intervention": intervention,
        "witnesses": k,
        "attempted": n,
        "share": k / n,
        "interval": list(wilson(k, n)),
        "confirmed": confirmed,
        "evidence": evidence + ending,
    }


def _check(check: tuple[str, str, float | None, str, str], scene: Scene) -> dict[str, Any]:
    name, label, value, limit, severity = check
    fired = name in scene.fired
    quiet = 0.0 if value is not None and name != "grid_gradient" else None
    detail = "Measured on 100 samples of the first batch; the median is given." if fired else "Nothing to see."
    return {
        "name": name,
        "label": label,
        "value": value if fired else quiet,
        "limit": limit,
        "fired": fired,
        "severity": severity,
        "detail": detail,
    }
