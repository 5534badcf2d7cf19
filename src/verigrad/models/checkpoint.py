"""A model on disk: a directory with `model.safetensors` (weights, which run no code) and `model.json` (what to build).

The description is nested JSON of catalog names,

    {"name": "scaled-logits", "kwargs": {"scale": 1000.0, "module": {"name": "sonet", "kwargs": {"channels": 8}}}}

or a spec such as "sonet:channels=8" wherever a model stands.
"""

from __future__ import annotations

import json
import os
import reprlib
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.models.faults import told
from verigrad.models.inspecting import check_weights, weights_hash
from verigrad.models.weights import load_weights

FORMAT = 1
DEEPEST = 16  # far below Python's limit of recursion, which a forward pass through as many must not meet
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"

ModelConfig = str | Mapping[str, Any]


def build_model(config: ModelConfig) -> nn.Module:
    """A fresh model from its description. Weights are drawn from the global generator.

    Raises:
        BadInput: an unknown name or argument, an argument that the model refuses, or too many models in one another.
    """
    return _built(config, 0)


def _built(config: ModelConfig, depth: int) -> nn.Module:
    if depth > DEEPEST:
        raise BadInput(f"The description holds more than {DEEPEST} models in one another. Leave some of them out.")
    if isinstance(config, str):
        shown = config if len(config) <= 80 else f"{config[:80]}…"
        return _made(f"The model {shown!r} cannot be built", lambda: catalog.build("model", config))
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise BadInput(f"A model is described by a spec, or by 'name' and 'kwargs'. Got {reprlib.repr(config)}.")
    kwargs = config.get("kwargs", {})
    if not isinstance(kwargs, Mapping) or set(config) - {"name", "kwargs"}:
        raise BadInput(f"The description of {config['name']!r} must hold 'name' and 'kwargs' (a table) alone.")
    entry = catalog.find("model", config["name"])
    values = {key: _value(key, value, depth + 1) for key, value in kwargs.items()}
    words = f"The model {entry.name} cannot be built from {sorted(values)}"
    return _made(words, lambda: catalog.load(entry)(**values))


def _made(words: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` gives; what torch says of numbers that no memory holds is told in one line after `words`."""
    try:
        return make()
    except (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError) as fault:
        raise BadInput(f"{words}: {told(fault)} Check its numbers.") from fault


def _value(key: str, value: Any, depth: int) -> Any:
    if isinstance(value, Mapping) or key == "module":
        return _built(value, depth)
    return tuple(value) if isinstance(value, list) else value


def save_checkpoint(config: ModelConfig, model: nn.Module, path: str | Path) -> None:
    """Writes a model so that `load_checkpoint` builds it again. A directory appears whole or not at all.

    Args:
        config: what `build_model` makes the model from.
        model: its weights are saved.
        path: a new directory, or an earlier checkpoint, which is replaced.

    Raises:
        BadInput: the path is taken by something else, or the weights are not those of the described model.
    """
    path = Path(path)
    if path.exists() and not (path / DESCRIPTION).is_file():
        raise BadInput(f"{path} exists and is no checkpoint of verigrad. Choose another path, or remove it.")
    _check_same_keys(config, model)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    text = json.dumps({"format": FORMAT, "model": config, "weights_sha256": weights_hash(model)}, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    draft.mkdir()
    try:
        (draft / WEIGHTS).write_bytes(save(weights))
        (draft / DESCRIPTION).write_text(text, encoding="utf-8")
        _swap(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _swap(draft: Path, path: Path) -> None:
    if not path.exists():
        os.rename(draft, path)
        return
    old = draft.with_name(f"{draft.name}.old")
    os.rename(path, old)
    os.rename(draft, path)
    shutil.rmtree(old, ignore_errors=True)


def _check_same_keys(config: ModelConfig, model: nn.Module) -> None:
    described = {name: tuple(tensor.shape) for name, tensor in build_aside(config).state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(described.keys() | given.keys()):
        if described.get(name) != given.get(name):
            raise BadInput(
                f"The description does not fit the model: {name!r} is {given.get(name, 'missing')} in the model and "
                f"{described.get(name, 'missing')} in what {config!r} builds."
            )


def load_checkpoint(path: str | Path) -> nn.Module:
    """The model in a checkpoint directory, in eval mode, on the CPU.

    Raises:
        BadInput: no such directory, a file of it is missing or cut short, or the weights are not the ones described.
    """
    path = Path(path)
    if not path.is_dir():
        raise BadInput(f"There is no checkpoint directory {path}.")
    for name in (DESCRIPTION, WEIGHTS):
        if not (path / name).is_file():
            raise BadInput(f"The checkpoint {path} is half-written or none: it has no {name}. Save it again.")
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    except RecursionError as fault:
        raise BadInput(f"{path / DESCRIPTION} is no description: it is nested too deeply. Save it again.") from fault
    except ValueError as fault:
        raise BadInput(f"The checkpoint {path} is half-written: {DESCRIPTION} cannot be read ({fault}).") from fault
    if not isinstance(description, dict) or description.get("format") != FORMAT or "model" not in description:
        raise BadInput(f"{path / DESCRIPTION} is no description of format {FORMAT}. Save the model with this version.")
    model = build_aside(description["model"])
    load_weights(model, path / WEIGHTS)
    if weights_hash(model) != description.get("weights_sha256"):
        raise BadInput(f"The weights in {path / WEIGHTS} are not those that were saved: their SHA-256 differs.")
    check_weights(model)
    model.eval()
    return model


def build_aside(config: ModelConfig) -> nn.Module:
    """A model whose first weights do not matter; the global generator is afterwards what it was before."""
    with torch.random.fork_rng(devices=[]):
        return build_model(config)
