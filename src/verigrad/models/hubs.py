"""Classifiers of timm and torchvision, by name.

    timm:resnet18.a1_in1k                      the weights of that tag (a download, unless they are in the cache)
    timm:resnet18:classes=10,in_channels=1     the architecture; its weights come from a file
    timm:resnet18.a1_in1k:classes=10           the same, with the normalisation that belongs to the tag
    torchvision:resnet18.IMAGENET1K_V1         likewise; the only setting is `classes`

A tag says how the input is normalised, and that goes inside, so that images stay in [0, 1]. Without a tag nothing is
known of it: `normalised.py` says it in the reference. Resizing and cropping are never part of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.faults import told
from verigrad.models.normalised import Normalised
from verigrad.models.weights import load_weights
from verigrad.spec import Mismatch, Unreadable, Word, convert, expectation, read, show


class Wanted(NamedTuple):
    """One model of a hub.

    Args:
        ref: as it was written.
        name: the architecture.
        tag: which of its published weights, or "".
        settings: `classes` and `in_channels`, as far as they are set.
        weights: a file in place of published weights.
    """

    ref: str
    name: str
    tag: str
    settings: dict[str, int]
    weights: str | Path | None


def load_timm(ref: str, weights: str | Path | None) -> nn.Module:
    """The model behind "timm:NAME[.TAG][:classes=K,in_channels=C]".

    Raises:
        BadInput: timm is not there, it has no such model or tag, or it would have random weights.
    """
    timm = package("timm", ref)
    wanted = _wanted(ref, weights, keys=("classes", "in_channels"))
    if not timm.is_model(wanted.name):
        _refuse_name(wanted, timm.list_models())
    _check_weights_named(wanted, (full.partition(".")[2] for full in timm.list_pretrained(f"{wanted.name}.*")))
    full = f"{wanted.name}.{wanted.tag}" if wanted.tag else wanted.name
    model = _made(
        wanted,
        timm.create_model,
        full,
        pretrained=weights is None,
        **_renamed(wanted.settings, {"classes": "num_classes", "in_channels": "in_chans"}),
    )
    about = model.pretrained_cfg
    if weights is None and not about.get("num_classes", 1):
        raise BadInput(f"{ref} gives features and no classes. Choose a tag that was trained to classify.")
    return _finished(model, wanted, about["mean"], about["std"])


def load_torchvision(ref: str, weights: str | Path | None) -> nn.Module:
    """The model behind "torchvision:NAME[.TAG][:classes=K]".

    Raises:
        BadInput: torchvision is not there, it has no such classifier or tag, or it would have random weights.
    """
    models = package("torchvision.models", ref)
    wanted = _wanted(ref, weights, keys=("classes",))
    # The module itself holds the classifiers alone; detection and segmentation lie deeper.
    if wanted.name not in (known := models.list_models(module=models)):
        _refuse_name(wanted, known)
    published = {entry.name: entry for entry in models.get_model_weights(wanted.name)}
    _check_weights_named(wanted, published)
    model = _made(
        wanted,
        models.get_model,
        wanted.name,
        weights=published[wanted.tag] if weights is None else None,
        **_renamed(wanted.settings, {"classes": "num_classes"}),
    )
    if not wanted.tag:
        return _finished(model, wanted, (), ())
    seen = published[wanted.tag].transforms()
    return _finished(model, wanted, seen.mean, seen.std)


def package(name: str, ref: str) -> Any:
    """A package of the user's own that a reference needs.

    Raises:
        BadInput: it is not installed, or cannot be imported.
    """
    root = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name == root:
            raise BadInput(
                f"{root} is not installed, and the model {ref!r} needs it. Install it: pip install {root}."
            ) from fault
        raise BadInput(f"{root} is installed, but cannot be imported: {told(fault)}") from fault
    except Exception as fault:
        # torchvision and torch are compiled for each other, release by release.
        raise BadInput(
            f"{root} is installed, but cannot be imported: {told(fault)} Install the release made for this torch."
        ) from fault


def _wanted(ref: str, weights: str | Path | None, *, keys: tuple[str, ...]) -> Wanted:
    hub, _, rest = ref.partition(":")
    try:
        tree = read(rest)
    except Unreadable as fault:
        raise BadInput(
            f"Cannot read {ref!r}: {fault}. It should read {hub}:NAME.TAG or {hub}:NAME:classes=10."
        ) from None
    settings: dict[str, int] = {}
    for key, value in (tree.pairs or {}).items():
        if key not in keys:
            raise BadInput(f"A model of {hub} has no key {key!r}. Its keys are {', '.join(keys)}.")
        try:
            settings[key] = convert(value, int, _no_object)
        except Mismatch:
            raise BadInput(f"The {key!r} of {ref!r} must be {expectation(int)}. Got {show(value)}.") from None
        if settings[key] < 1:
            raise BadInput(f"The {key!r} of {ref!r} must be at least 1. Got {settings[key]}.")
    name, _, tag = tree.text.partition(".")
    return Wanted(ref, name, tag, settings, weights)


def _no_object(word: Word, annotation: object) -> NoReturn:
    raise Mismatch


def _refuse_name(wanted: Wanted, known: Iterable[str]) -> NoReturn:
    hub = wanted.ref.partition(":")[0]
    close = get_close_matches(wanted.name, list(known), n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise BadInput(f"{hub} has no classifier {wanted.name!r}, needed for {wanted.ref!r}.{meant}")


def _check_weights_named(wanted: Wanted, tags: Iterable[str]) -> None:
    known = [tag for tag in tags if tag]
    offered = f"Its tags are {', '.join(known)}." if known else "It has no published weights."
    if wanted.tag and wanted.tag not in known:
        raise BadInput(f"{wanted.name} has no weights {wanted.tag!r}, needed for {wanted.ref!r}. {offered}")
    if wanted.weights is not None:
        return
    if not wanted.tag:
        raise BadInput(f"{wanted.ref} would have random weights. Give --weights FILE, or write NAME.TAG. {offered}")
    if wanted.settings:
        raise BadInput(
            f"{wanted.ref} would have random weights: those of {wanted.tag} have a shape of their own. Leave out "
            f"{' and '.join(wanted.settings)}, or give --weights FILE."
        )


def _made(wanted: Wanted, make: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return make(*arguments, **named)
    except Exception as fault:
        mend = "" if wanted.weights is not None else " Without a connection, give the weights by --weights FILE."
        raise BadInput(f"The model {wanted.ref!r} cannot be made: {told(fault)}{mend}") from fault


def _renamed(settings: Mapping[str, int], theirs: Mapping[str, str]) -> dict[str, int]:
    return {theirs[key]: value for key, value in settings.items()}


def _finished(model: nn.Module, wanted: Wanted, mean: Iterable[float], std: Iterable[float]) -> nn.Module:
    if wanted.weights is not None:
        load_weights(model, wanted.weights)
    return Normalised(model, tuple(mean), tuple(std)) if wanted.tag else model
