"""`verigrad audit`: is this model's claimed robust accuracy true?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verigrad.cli.device import Device, judging_device

if TYPE_CHECKING:
    from torch import nn

    from verigrad.attacks.base import Attack
    from verigrad.cli.progress import Advance
    from verigrad.core.threat import Threat
    from verigrad.data.images import Images

GATES = {"obfuscated": 3, "undecided": 4, "overstated": 5}


def audit(
    model: Annotated[
        str,
        typer.Argument(
            help="package.module:factory, a checkpoint folder, timm:NAME.TAG, torchvision:NAME.TAG, hf:DIR."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="digits, mnist:DIR, cifar10:DIR, cifar100:DIR, imagenet:DIR, .npz with x and y, or a folder by class."
        ),
    ],
    threat: Annotated[str, typer.Option(help="linf:EPS, l2:EPS or l0:PIXELS; fractions such as linf:8/255 are fine.")],
    out: Annotated[Path, typer.Option(help="Folder for ledger, audit.json, report.html; the same command resumes it.")],
    weights: Annotated[str | None, typer.Option(help="Weights for the model: .safetensors or .pt.")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="MEAN/STD that the model wants its input normalised by: 0.5/0.25, or by channel.")
    ] = None,
    claim: Annotated[float | None, typer.Option(help="The stated robust accuracy, a fraction in [0, 1].")] = None,
    claim_attack: Annotated[str, typer.Option(help="The attack behind the claim.")] = "pgd:steps=20,keep=last",
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Samples judged together, as the claim was.", min=1)] = 100,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
    title: Annotated[str | None, typer.Option(help="What to call the model in the reports.")] = None,
    gate: Annotated[
        bool, typer.Option("--gate", help="Exit 3 on obfuscated, 4 on undecided, 5 on overstated.")
    ] = False,
) -> None:
    """Say whether a claimed robust accuracy holds, with stored adversarial examples as proof."""
    from rich.console import Console

    from verigrad import catalog
    from verigrad.auditing.audit import audit as run_audit
    from verigrad.auditing.claim import Claim
    from verigrad.auditing.identity import Names
    from verigrad.cli.progress import progress
    from verigrad.core.threat import parse_threat
    from verigrad.data.load import load_data
    from verigrad.models.loading import load_model
    from verigrad.models.normalised import normalising
    from verigrad.reports.terminal import report

    ball = parse_threat(threat)
    where = judging_device(device)
    named = model if normalise is None else normalising(model, normalise)
    claimed = Claim(attack=catalog.build("attack", claim_attack), accuracy=claim)
    images = load_data(data, n=n)
    classifier = load_model(named, weights=weights)
    classifier.to(where)
    names = Names(title=title or model, model=named, weights=weights or "", data=data)
    with progress("audit", _about(claimed.attack, classifier, images, ball), steps=True) as advance:
        found = run_audit(
            classifier,
            images,
            ball,
            claim=claimed,
            batch=batch,
            seed=seed,
            out=out,
            names=names,
            progress=_told(advance),
        )
    console = Console()
    console.print(report(found.summary))
    console.print(f"report: {out / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
    typer.echo(f"seal: {found.summary['seal']}")
    if gate and found.verdict in GATES:
        raise typer.Exit(GATES[found.verdict])


def _about(attack: Attack, model: nn.Module, images: Images, threat: Threat) -> int:
    """How many steps an audit may have: health, clean predictions, the claim, interventions, rounds of escalation."""
    from verigrad.auditing.claim import Budget
    from verigrad.auditing.interventions import interventions
    from verigrad.core.classifier import batch_coupled

    budget, reach = Budget(), threat.reach(images.x[:1])
    ways = interventions(attack, model, coupled=batch_coupled(model), random=False, reach=reach, budget=budget)
    return 3 + len(ways) + budget.rounds


def _told(advance: Advance) -> Callable[[str], None]:
    """The notes of an audit as steps; each of its health checks tells that it is done, which is no step of its own."""
    return lambda note: advance(0 if note.startswith("health: ") else 1, note)
