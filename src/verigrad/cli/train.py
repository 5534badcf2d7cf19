"""`verigrad train`: a model of the catalog from its spec to a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from verigrad.core.errors import BadInput

if TYPE_CHECKING:
    from verigrad.cli.progress import Advance
    from verigrad.training.checkpoint import Epoch
    from verigrad.training.trainer import Progress


def train(
    model: Annotated[
        str,
        typer.Option(
            help="The model's spec, such as small-conv:channels=8. Channels, size and classes are those of the data."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="digits, mnist:DIR, cifar10:DIR, a .npz with x and y, or a folder by class.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint, which must not be there yet.")],
    objective: Annotated[
        str, typer.Option(help="natural, or such as adversarial:threat=linf(eps=0.1),attack=pgd(steps=7,keep=last).")
    ] = "natural",
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples in a step.")] = 100,
    optimiser: Annotated[Literal["sgd", "adam"], typer.Option(help="sgd has momentum 0.9.")] = "sgd",
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 0.05,
    schedule: Annotated[
        str, typer.Option(help="steps:at=(0.5,0.8),factor=0.1 or one-cycle; constant by default.")
    ] = "steps",
    validation: Annotated[int, typer.Option(help="Samples held out to measure accuracy.")] = 0,
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and every random draw.")] = 0,
) -> None:
    """Train a model of the catalog.

    The state lies in OUT.training until the last epoch is done; the same command goes on from there.
    """
    from verigrad import catalog
    from verigrad.cli.progress import progress
    from verigrad.data.load import load_data
    from verigrad.models.loading import check_classifier, save_checkpoint
    from verigrad.training.recipe import Recipe
    from verigrad.training.trainer import initialised
    from verigrad.training.trainer import train as run_training

    if out.exists():
        raise BadInput(f"{str(out)!r} is there already. Choose another folder for --out, or remove it.")
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        optimiser=optimiser,
        lr=lr,
        schedule=catalog.build("schedule", schedule),
        validation=validation,
        seed=seed,
    )
    loss = catalog.build("objective", objective)
    images = load_data(data, "train", n=n)
    _, channels, _, size = images.x.shape
    model = catalog.complete(model, in_channels=channels, classes=images.classes, size=size)
    classifier = initialised(lambda: catalog.build("model", model), seed).eval()
    check_classifier(classifier, images.x, images.y)
    state = out.with_name(f"{out.name}.training")
    with progress("train", epochs * -(-(len(images) - validation) // batch)) as advance:
        told = _told(advance)
        trained = run_training(classifier, images.x, images.y, loss, recipe, progress=told, checkpoint=state)
    save_checkpoint(model, classifier, out)
    state.unlink(missing_ok=True)
    typer.echo(_written(trained.history[-1]))
    typer.echo(f"model: {out}")


def _told(advance: Advance) -> Callable[[Progress], None]:
    seen = 0

    def told(now: Progress) -> None:
        nonlocal seen
        advance(now.step - seen, note=_written(now.epoch) if now.epoch else "")
        seen = now.step

    return told


def _written(epoch: Epoch) -> str:
    parts = [f"{name} {value:.4f}" for name, value in epoch.parts.items()]
    if epoch.validation is not None:
        parts.append(f"validation accuracy {epoch.validation:.4f}")
    return f"epoch {epoch.number}: {', '.join(parts)}"
