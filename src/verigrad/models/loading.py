"""The models that a user names: every form of reference, with or without a weights file.

package.module:factory             called without arguments; modules are also looked for in the working directory
runs/mine                          a checkpoint folder of verigrad
small-conv:channels=8                 a spec of the catalog, with a weights file
timm:NAME.TAG, torchvision:NAME.TAG    `hubs.py`
hf:DIR                             `hugging_face.py`
normalised:mean=(0.5),module="REF",std=(0.2)    `normalised.py`; a weights file is for the model inside
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.models.checkpoint import DESCRIPTION, build_aside, load_checkpoint
from verigrad.models.checkpoint import save_checkpoint as save_checkpoint
from verigrad.models.faults import told
from verigrad.models.hubs import load_timm, load_torchvision
from verigrad.models.hugging_face import load_hugging_face
from verigrad.models.inspecting import check_classifier as check_classifier
from verigrad.models.inspecting import check_weights
from verigrad.models.inspecting import describe_model as describe_model
from verigrad.models.inspecting import weights_hash as weights_hash
from verigrad.models.normalised import Normalised, Wrapped, read_normalised
from verigrad.models.weights import load_weights

Loader = Callable[[str, "str | Path | None"], nn.Module]

HUBS: dict[str, Loader] = {"timm": load_timm, "torchvision": load_torchvision, "hf": load_hugging_face}


def load_model(ref: str, weights: str | Path | None = None) -> nn.Module:
    """The model behind a reference, in eval mode.

    Only what is named is ever run: no code of a folder or of a weights file. A factory may draw random weights;
    whatever is named by a spec or by a hub has weights from a file, a folder or a tag.

    Args:
        ref: one of the forms above. A class of a module is a factory. What exists as a folder is a checkpoint.
        weights: a .safetensors, .pt or .pth file that replaces the model's weights.

    Raises:
        BadInput: one line that says what is missing or wrong.
    """
    try:
        model = _loaded(ref, weights)
    except RecursionError as fault:
        raise BadInput(f"The model {ref[:80]!r}… cannot be read: it is nested too deeply.") from fault
    check_weights(model)
    try:
        model.eval()  # what it returns is not used: a train() of their own may return nothing
    except (Exception, SystemExit) as fault:
        raise BadInput(
            f"The model {ref!r} cannot be put into eval mode: {told(fault)} Mend its train(self, mode=True)."
        ) from fault
    return model


def _loaded(ref: str, weights: str | Path | None) -> nn.Module:
    if (wrapped := read_normalised(ref)) is not None:
        return _normalised(wrapped, weights)
    if not ref.strip():
        raise BadInput("The model has no name. Write e.g. mypackage.models:make_model, or a checkpoint directory.")
    path = Path(ref)
    if os.path.isdir(ref):  # that of a Path raises where a spec is longer than a file's name may be
        return _with_weights(load_checkpoint(path), weights)
    if os.path.exists(ref):
        raise BadInput(
            f"{ref} is a file. A model is package.module:factory (with --weights {path.name}), or a checkpoint "
            f"directory that holds {DESCRIPTION}."
        )
    if (hub := HUBS.get(ref.partition(":")[0])) is not None and ":" in ref:
        with torch.random.fork_rng(devices=[]):  # the weights that they draw first do not matter
            return hub(ref, weights)
    if _is_spec(ref):
        return _from_catalog(ref, weights)
    if ":" in ref:
        return _with_weights(_from_factory(ref), weights)
    raise BadInput(
        f"There is no model {ref!r}: no such directory, no such model in the catalog (verigrad list models), and no "
        "package.module:factory. Write e.g. mypackage.models:make_model."
    )


def _with_weights(model: nn.Module, weights: str | Path | None) -> nn.Module:
    if weights is not None:
        load_weights(model, weights)
    return model


def _normalised(wrapped: Wrapped, weights: str | Path | None) -> nn.Module:
    model = _loaded(wrapped.module, weights)
    if isinstance(model, Normalised):
        raise BadInput(
            f"The model {wrapped.module!r} normalises its input already: (x - {model.mean.flatten().tolist()}) / "
            f"{model.std.flatten().tolist()}. Leave the second normalisation out."
        )
    return Normalised(model, wrapped.mean, wrapped.std)


def _is_spec(ref: str) -> bool:
    """A factory's attribute has no "=" in it, and a setting has: `sonet:make` is a factory in a module `sonet`."""
    name, _, rest = ref.partition(":")
    known = {entry.name for entry in catalog.entries("model")}
    return name.strip().lower().replace("_", "-") in known and (":" not in ref or "=" in rest)


def _from_catalog(ref: str, weights: str | Path | None) -> nn.Module:
    model = build_aside(ref)
    if weights is None:
        raise BadInput(
            f"The model {ref!r} of the catalog would have random weights. Give --weights FILE, or train it: "
            f"verigrad train --model {ref}."
        )
    return _with_weights(model, weights)


def _from_factory(ref: str) -> nn.Module:
    module_name, _, attribute = ref.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"A factory is named package.module:factory. Got {ref!r}.")
    # What their code prints is no part of a command's output, which may be JSON.
    with _working_directory_importable(), redirect_stdout(sys.stderr):
        factory = _attribute(_module(module_name, ref), attribute, ref)
        if not callable(factory):
            raise BadInput(f"{ref!r} is no factory: it is a {type(factory).__name__}, which cannot be called.")
        try:
            model = factory()
        except (Exception, SystemExit) as fault:  # an exit code of theirs would be taken for a verdict's
            raise BadInput(f"The factory {ref!r} failed: {told(fault)} It is called without arguments.") from fault
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
        raise BadInput(f"The module {name!r} cannot be imported: {told(fault)}") from fault
    except (Exception, SystemExit) as fault:
        raise BadInput(f"The module {name!r} cannot be imported: {told(fault)}") from fault


def _attribute(module: Any, dotted: str, ref: str) -> Any:
    found = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            raise BadInput(f"There is no {dotted!r} in the module {module.__name__!r}, needed for the model {ref!r}.")
        found = getattr(found, name)
    return found


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
