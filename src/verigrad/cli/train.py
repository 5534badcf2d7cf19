"""`verigrad train`: a model of the catalog from its spec to a checkpoint. `training.py` has the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from verigrad.cli.device import Device
from verigrad.core.errors import BadInput


def train(
    model: Annotated[
        str,
        typer.Option(
            help="The model's spec, such as small-conv:channels=8. Channels, size and classes are those of the data."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(help="digits, mnist:DIR, cifar10:DIR, cifar100:DIR, imagenet:DIR, a .npz, or a folder by class."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint: empty, new, or of this training, interrupted.")],
    objective: Annotated[
        str | None,
        typer.Option(
            help="A loss: natural (the default), or such as adversarial:threat=linf(eps=8/255), "
            "trades:threat=linf(eps=8/255),beta=6 or gradient-penalty:norm=l1,h=0.1. All, with papers and parameters: "
            "verigrad list objectives."
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="In place of --objective, a training step that is more than a loss, such as "
            "free:threat=linf(eps=8/255),replays=8 or yopo:threat=linf(eps=8/255). All: verigrad list algorithms."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples in a step, of all processes together.")] = 100,
    optimiser: Annotated[Literal["sgd", "adam", "adamw"], typer.Option(help="sgd has momentum.")] = "sgd",
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 0.05,
    momentum: Annotated[float, typer.Option(help="Of sgd.")] = 0.9,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="Nesterov's form of it.")] = False,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty; with adamw apart from the gradient.")] = 0.0,
    schedule: Annotated[
        str, typer.Option(help="steps:at=(0.5,0.8),factor=0.1 or one-cycle; constant by default.")
    ] = "steps",
    clip: Annotated[float | None, typer.Option(help="The longest gradient that is taken as it is.")] = None,
    mean_weights: Annotated[
        float | None, typer.Option(help="Decay of a moving average of the weights, which is kept in their place.")
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="Of forward passes; a finite difference below h=0.1 stays in float32."),
    ] = "float32",
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Memory layout of weights and images.")
    ] = False,
    crop: Annotated[int, typer.Option(help="Images are moved at random by up to so many pixels.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Images are mirrored at random.")] = False,
    cutout: Annotated[int, typer.Option(help="Side of a square that is painted over at random.")] = 0,
    fill: Annotated[float, typer.Option(help="Value of the pixels that crop and cutout leave open.")] = 0.0,
    validation: Annotated[
        int,
        typer.Option(
            help="Samples of the training part held out: the weights that do best on them, under the quick attack if "
            "there is one, are kept in OUT/best too."
        ),
    ] = 0,
    watch: Annotated[
        str | None,
        typer.Option(
            help="Threat, such as linf:8/255, of a quick attack (PGD-5) after each epoch, on samples held out or "
            "else of the training; none for none; by default that of the training."
        ),
    ] = None,
    n: Annotated[int | None, typer.Option(help="How many samples, from the first on; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and every random draw.")] = 0,
    device: Device = "auto",
    save_every: Annotated[str, typer.Option(help="How often to save between epochs, such as 90s, 10m or 2h.")] = "5m",
    time_limit: Annotated[
        str | None, typer.Option(help="When to stop, saved, such as 90s, 10m or 2h; the same command goes on.")
    ] = None,
    track: Annotated[bool, typer.Option("--track", help="Write OUT/tensorboard too.")] = False,
) -> None:
    """Train a model of the catalog.

    OUT holds the state until the last epoch is done, and the same command goes on from there; then the model, the best
    model in OUT/best if samples are held out, and OUT/metrics.jsonl. All processes of torchrun train one model:
    torchrun --nproc-per-node 4 --no-python -- verigrad train ...
    """
    from verigrad import catalog
    from verigrad.cli.training import Job, run
    from verigrad.data.augment import Augment
    from verigrad.training.recipe import Recipe

    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        optimiser=optimiser,
        lr=lr,
        schedule=catalog.build("schedule", schedule),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        clip=clip,
        mean_weights=mean_weights,
        precision=precision,
        channels_last=channels_last,
        augment=Augment(crop=crop, flip=flip, cutout=cutout, fill=fill),
        validation=validation,
        seed=seed,
    )
    run(
        Job(
            model=model,
            data=data,
            n=n,
            out=out,
            method=_method(objective, algorithm),
            recipe=recipe,
            watch=watch,
            device=device,
            save_every=_seconds("--save-every", save_every),
            time_limit=None if time_limit is None else _seconds("--time-limit", time_limit),
            track=track,
        )
    )


def _method(objective: str | None, algorithm: str | None) -> Any:
    from verigrad import catalog

    if objective is not None and algorithm is not None:
        raise BadInput("--objective and --algorithm exclude each other. Leave one out.")
    kind, other = ("objective", "algorithm") if algorithm is None else ("algorithm", "objective")
    spec = objective or algorithm or "natural"
    name = spec.partition(":")[0].strip().replace("_", "-")
    if name in {entry.name for entry in catalog.entries(other)}:
        raise BadInput(f"{name!r} is no {kind} but an {other}. Give it as --{other}.")
    return catalog.build(kind, spec)


def _seconds(option: str, text: str) -> float:
    """A length of time: 90, 90s, 10m or 2h."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadInput(f"{option} must be a length of time such as 90s, 10m or 2h. Got {text!r}.")
    return seconds
