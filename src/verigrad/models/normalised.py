"""Normalisation inside the model, and how a reference says so: `normalised:mean=(...),module="REF",std=(...)`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.spec import Mismatch, Quoted, Unreadable, Value, Word, convert, read, show

FORM = 'normalised:mean=(0.5,0.5,0.5),module="REFERENCE",std=(0.2,0.2,0.2)'


class Normalised(nn.Module):
    """The classifier sees (x - mean) / std, channel by channel. Images stay in [0, 1] outside of it.

    Mean and std are buffers, so that another normalisation has another `weights_hash`.

    Args:
        module: the classifier.
        mean, std: one number for each channel of the images, or one for all; std is positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        _check_channels(mean, std)
        self.module = module
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        channels = self.mean.shape[1]
        if channels not in (1, x.shape[1]):
            # Broadcasting would make colour images of grey ones.
            raise BadInput(f"The model normalises {channels} channels, but the images have {x.shape[1]}.")
        return self.module((x - self.mean) / self.std)


class Wrapped(NamedTuple):
    """A reference under a normalisation."""

    module: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def normalising(ref: str, text: str) -> str:
    """The reference of the model that `ref` names, with its input normalised first.

    Args:
        ref: any reference that `load_model` takes.
        text: "MEAN/STD", each one number or as many as there are channels, with commas between them. Images that
            should be in [0, 255] inside are "0/0.00392157".

    Raises:
        BadInput: the text is something else.
    """
    mean, _, std = text.partition("/")
    try:
        means, stds = (tuple(float(word) for word in part.split(",")) for part in (mean, std))
    except ValueError:
        raise BadInput(
            "--normalise must be MEAN/STD, with one number for each channel, such as "
            f"0.49,0.48,0.45/0.25,0.24,0.26. Got {text!r}."
        ) from None
    _check_channels(means, stds)
    return f"normalised:mean={_written(means)},module={json.dumps(ref)},std={_written(stds)}"


def read_normalised(ref: str) -> Wrapped | None:
    """What a reference of the form `FORM` says; None for any other. A name of the catalog needs no quotes in it.

    Raises:
        BadInput: it begins like one, and cannot be read.
    """
    name, _, rest = ref.partition(":")
    if name.strip().lower() != "normalised" or "=" not in rest:
        return None
    try:
        pairs = read(ref).pairs or {}
        wrapped = Wrapped(_reference(pairs.pop("module")), **{key: _numbers(value) for key, value in pairs.items()})
    except (Unreadable, Mismatch, KeyError, TypeError) as fault:
        raise BadInput(f"Cannot read {ref!r}. A normalised model is written {FORM}.") from fault
    _check_channels(wrapped.mean, wrapped.std)
    return wrapped


def _reference(value: Value) -> str:
    if isinstance(value, Quoted):
        return value.text
    if not isinstance(value, Word):
        raise Mismatch
    settings = [f"{key}={show(one)}" for key, one in (value.pairs or {}).items()]
    return f"{value.text}:{','.join(settings)}" if settings else value.text


def _numbers(value: Value) -> tuple[float, ...]:
    if isinstance(value, Quoted):
        raise Mismatch
    return convert(value, tuple[float, ...], _no_object)


def _no_object(word: Word, annotation: object) -> NoReturn:
    raise Mismatch


def _written(numbers: tuple[float, ...]) -> str:
    return f"({','.join(map(repr, numbers))})"


def _check_channels(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or not mean:
        raise BadInput(
            f"'mean' and 'std' of Normalised must have one number for each channel. Got {len(mean)} and {len(std)}."
        )
    if not (all(map(math.isfinite, mean)) and all(math.isfinite(s) and s > 0 for s in std)):
        raise BadInput(f"'mean' of Normalised must be finite and 'std' positive. Got {tuple(mean)} and {tuple(std)}.")
