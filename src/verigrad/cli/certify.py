"""`verigrad certify`: how far around each image the answer stays the same, and what speaks against it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verigrad.cli.device import Device, judging_device
from verigrad.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from verigrad.evaluation.subject import Subject
    from verigrad.ledger.store import Ledger

# A sound certificate with an error inside its radius, or a probabilistic one with more than its chance allows.
CONTRADICTED = 6


def certify(
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
    certificate: Annotated[
        list[str], typer.Option(help="NAME or NAME:key=value,...; several between blanks, or the option again.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the ledger and the page; the same command resumes it.")],
    check: Annotated[
        list[str] | None,
        typer.Option(help="Minimal attacks that look for errors inside the radii; 'none' for none."),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Folders of attacks or audits whose witnesses are compared too.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights for the model: .safetensors or .pt.")] = None,
    normalise: Annotated[
        str | None, typer.Option(help="MEAN/STD that the model wants its input normalised by: 0.5/0.25, or by channel.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Samples judged together.", min=1)] = 100,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of every random draw.")] = 0,
) -> None:
    """Certify a model and print how far, how surely, and what contradicts it.

    Exits 6 if an error lies inside a radius where the certificate's class allows none.
    """
    from verigrad import catalog
    from verigrad.auditing.identity import Names, identify_run
    from verigrad.data.load import load_data
    from verigrad.evaluation.subject import Subject
    from verigrad.ledger.store import Ledger
    from verigrad.models.loading import check_classifier, load_model
    from verigrad.models.normalised import normalising

    where = judging_device(device)
    named = model if normalise is None else normalising(model, normalise)
    certificates = {spec: catalog.build("certificate", spec) for text in certificate for spec in text.split()}
    norm = _one_norm(certificates)
    images = load_data(data, n=n)
    box = _box(norm, math.prod(images.x.shape[1:]))
    attacks = _attacks(["fmn"] if check is None else check, str(box).partition(":")[0])
    classifier = load_model(named, weights=weights)
    classifier.to(where)
    check_classifier(classifier, images.x, images.y)
    subject = Subject(model=classifier, x=images.x, y=images.y, threat=box, batch=batch, seed=seed)
    # Neither certificates nor attacks are part of it: more of them may be tried on the same ledger.
    names = Names(model=named, weights=weights or "", data=data)
    identity = {**identify_run("certify", subject, images, names), "norm": norm}
    with Ledger.create_or_resume(out / "ledger.sqlite", identity) as ledger:
        _run(subject, ledger, certificates, attacks)
        for place in against or ():
            ledger.put_note("against", str(place), True)
    show_certificates(out)


def show_certificates(out: Path) -> None:
    """Prints and draws what the ledger in a folder holds.

    Raises:
        typer.Exit: with 6 where a certificate breaks the promise of its class.
    """
    from rich.console import Console

    from verigrad.ledger.store import Ledger
    from verigrad.reports.certified_gathering import gather_certificates
    from verigrad.reports.certified_page import write_certificates
    from verigrad.reports.certified_table import certified_table

    with Ledger.read(out / "ledger.sqlite") as ledger:
        against = list(ledger.notes("against"))
    found = gather_certificates(out, against)
    written = write_certificates(found, out)
    Console().print(certified_table(found))
    typer.echo(f"certificates: {written.page}")
    if any(row.broken_promise() for row in found.rows):
        raise typer.Exit(CONTRADICTED)


def _one_norm(certificates: Mapping[str, Any]) -> str:
    if not certificates:
        raise BadInput("--certificate names none. Write for example --certificate smoothing:sigma=0.25.")
    norms = {spec: one.norm for spec, one in certificates.items()}
    first, norm = next(iter(norms.items()))
    for spec, other in norms.items():
        if other != norm:
            raise BadInput(
                f"The certificate {first!r} is in {norm} and {spec!r} in {other}: their radii cannot be compared. "
                "Run verigrad certify once for each norm."
            )
    return norm


def _box(norm: str, pixels: int) -> Any:
    """A ball that holds every image, in the norm of the attacks: those for L2 look for errors near in L1 too."""
    from verigrad.core.threat import L2, Linf

    return Linf(eps=1.0) if norm == "linf" else L2(eps=math.ceil(math.sqrt(pixels)))


def _attacks(specs: Sequence[str], norm: str) -> dict[str, Any]:
    from verigrad import catalog
    from verigrad.cli.parts import check_norm, is_minimal

    words = [spec for text in specs for spec in text.split()]
    if words == ["none"]:
        return {}
    tools = {spec: catalog.build("attack", spec) for spec in words}
    check_norm(tools, norm)
    for spec, tool in tools.items():
        if not is_minimal(tool):
            raise BadInput(
                f"--check {spec!r} stays inside a threat, but radii want the nearest error. "
                f"Write smallest-eps:attack={spec.replace(':', '(', 1) + (')' if ':' in spec else '')}, or fmn."
            )
    return tools


def _run(subject: Subject, ledger: Ledger, certificates: Mapping[str, Any], attacks: Mapping[str, Any]) -> None:
    from verigrad.certificates.run import certify as run_certificate
    from verigrad.cli.progress import follow, progress
    from verigrad.evaluation.clean import record_clean
    from verigrad.evaluation.run import attempt

    rows = record_clean(subject, ledger)
    right = [row.sample for row in rows if row.prediction == row.label]
    for spec, one in certificates.items():
        with progress("certify", len(rows)) as advance:
            told = follow(advance, note=spec)
            run_certificate(
                one, subject.model, subject.x, subject.y, ledger, seed=subject.seed, label=spec, progress=told
            )
    with progress("check", len(attacks) * len(right)) as advance:
        for spec, tool in attacks.items():
            told = follow(advance, note=spec)
            name = spec.partition(":")[0]
            attempt(subject, ledger, stage="claim", name=name, attack=tool, samples=right, progress=told)
