"""Weights from a file into a model: safetensors, or a PyTorch file that holds tensors alone."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from verigrad.core.errors import BadInput

TORCH_SUFFIXES = (".pt", ".pth")


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Puts the weights of a file into a model, all or none.

    A PyTorch file must hold a table of tensors (a `state_dict`), or such a table under "state_dict"; it is read with
    `weights_only=True`, so no code in it runs.

    Raises:
        BadInput: the file is missing, of another kind, cut short, holds pickled code, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no weights file {path}.")
    if path.suffix == ".safetensors":
        try:
            weights: Any = load_file(path)
        except (SafetensorError, OSError) as fault:
            raise BadInput(f"{path} is no whole safetensors file: {fault}.") from fault
    elif path.suffix in TORCH_SUFFIXES:
        weights = _tensors_of(_read_torch(path), path)
    else:
        raise BadInput(f"Weights must be a .safetensors, .pt or .pth file. Got {path.name!r}.")
    _check_fit(model, weights, path)
    model.load_state_dict(weights)


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its older file formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:
        if isinstance(fault, pickle.UnpicklingError) and "GLOBAL" in str(fault):
            told = "holds pickled code, which is never run. Save model.state_dict(), or a .safetensors file."
        else:
            told = "is no whole PyTorch file of tensors. Save it again with torch.save(model.state_dict(), path)."
        raise BadInput(f"{path} {told}") from fault


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise BadInput(f"{path} must hold a table of tensors. Save model.state_dict() alone.")
    return {str(name): tensor for name, tensor in content.items()}


def _check_fit(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise BadInput(
                f"The weights in {path} do not fit {type(model).__name__}: {name!r} is missing.{_prefix(weights)}"
            )
        _check_kind(name, weights[name], tensor, path)
        if weights[name].shape != tensor.shape:
            raise BadInput(
                f"The weights in {path} do not fit {type(model).__name__}: {name!r} has shape "
                f"{tuple(weights[name].shape)}, expected {tuple(tensor.shape)}."
            )
    for name in weights:
        if name not in expected:
            raise BadInput(f"The weights in {path} do not fit {type(model).__name__}: it has no {name!r}.")


def _check_kind(name: str, given: Tensor, expected: Tensor, path: Path) -> None:
    """That what is given can be copied into a tensor of the model without a loss of anything but precision."""
    if given.is_meta:
        told = "is a meta tensor, which holds no numbers. Save a model whose weights are in memory."
    elif given.layout != torch.strided or given.is_quantized or given.is_nested:
        told = "is sparse, nested or quantised. Save it dense, as .to_dense() or .dequantize() make it."
    elif given.is_complex() and not expected.is_complex():
        told = "is complex, and the model has a real one there. Save its real part."
    else:
        return
    raise BadInput(f"The weight {name!r} in {path} {told}")


def _prefix(weights: dict[str, Tensor]) -> str:
    if all(name.startswith("module.") for name in weights):
        return " Every name there begins with 'module.', as DataParallel writes them: save model.module.state_dict()."
    return ""
