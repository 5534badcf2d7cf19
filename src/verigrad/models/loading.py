"""The models that a user names: `package.module:factory`, or a checkpoint directory, with or without a weights file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.checkpoint import DESCRIPTION, load_checkpoint
from verigrad.models.checkpoint import save_checkpoint as save_checkpoint
from verigrad.models.inspecting import check_classifier as check_classifier
from verigrad.models.inspecting import check_weights
from verigrad.models.inspecting import describe_model as describe_model
from verigrad.models.inspecting import weights_hash as weights_hash
from verigrad.models.weights import load_weights


def load_model(ref: str, weights: str | Path | None = None) -> nn.Module:
    """The model behind a reference, in eval mode.

    Args:
        ref: "package.module:factory", where the factory is called without arguments and gives an `nn.Module` (a class
            of that kind is such a factory), and modules are also looked for in the working directory; or the path of a
            checkpoint directory. Only what is named here is ever run.
        weights: a .safetensors, .pt or .pth file that replaces the model's weights.

    Raises:
        BadInput: one line that says what is missing or wrong.
    """
    path = Path(ref)
    if path.is_dir():
        model = load_checkpoint(path)
    elif ":" in ref and not path.exists():
        model = _from_factory(ref)
    elif path.exists():
        raise BadInput(
            f"{ref} is a file. A model is package.module:factory (with --weights {path.name}), or a checkpoint "
            f"directory that holds {DESCRIPTION}."
        )
    else:
        raise BadInput(
            f"There is no model {ref!r}: no such directory, and no package.module:factory. "
            "Write e.g. mypackage.models:make_model."
        )
    if weights is not None:
        load_weights(model, weights)
    check_weights(model)
    return model.eval()


def _from_factory(ref: str) -> nn.Module:
    module_name, _, attribute = ref.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"A factory is named package.module:factory. Got {ref!r}.")
    with _working_directory_importable():
        factory = _attribute(_module(module_name, ref), attribute, ref)
        if not callable(factory):
            raise BadInput(f"{ref!r} is no factory: it is a {type(factory).__name__}, which cannot be called.")
        try:
            model = factory()
        except Exception as fault:
            raise BadInput(f"The factory {ref!r} failed: {_told(fault)} It is called without arguments.") from fault
    if not isinstance(model, nn.Module):
        raise BadInput(f"The factory {ref!r} must return a torch.nn.Module. Got {type(model).__name__}.")
    return model


def _module(name: str, ref: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name is not None and (name == fault.name or name.startswith(f"{fault.name}.")):
            raise BadInput(
                f"There is no module {fault.name!r}, needed for the model {ref!r}. "
                "It must be installed, or lie in the working directory or in a folder of PYTHONPATH."
            ) from fault
        raise BadInput(f"The module {name!r} cannot be imported: {_told(fault)}") from fault
    except Exception as fault:
        raise BadInput(f"The module {name!r} cannot be imported: {_told(fault)}") from fault


def _attribute(module: Any, dotted: str, ref: str) -> Any:
    found = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            raise BadInput(f"There is no {dotted!r} in the module {module.__name__!r}, needed for the model {ref!r}.")
        found = getattr(found, name)
    return found


def _told(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    text = f"{type(fault).__name__}: {lines[0]}" if lines else type(fault).__name__
    return text if text.endswith(".") else f"{text}."


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
