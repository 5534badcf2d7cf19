"""Named tensors and JSON in one safetensors file that is replaced as a whole; the file before it is kept."""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEY = "verigrad"


class Unreadable(Exception):
    """The file is not whole, or not of this kind."""


class Saved(NamedTuple):
    """tensors: by name, on the CPU. facts: plain JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def previous(path: Path) -> Path:
    """Where the state before the last one lies."""
    return path.with_name(f"{path.name}.previous")


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replaces the file; what was there becomes `previous(path)`. At every moment one whole file is at `path`.

    A draft is written in a folder beside it, where safetensors has its own drafts too, forced to the disk and renamed.
    """
    # The clone parts tensors that share memory, which the format refuses.
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"facts": facts, "crc32": _checksum(own)})
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path)
    folder = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    folder.mkdir()
    try:
        draft, before = folder / "draft", folder / "before"
        save_file(own, draft, metadata={KEY: text})
        _to_disk(draft)
        if path.exists():
            os.link(path, before)
            os.replace(before, previous(path))
        os.replace(draft, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read(path: Path) -> Saved:
    """What was written.

    Raises:
        Unreadable: the file is cut short, changed, or another kind of file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})[KEY]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        told = json.loads(text)
        facts, checksum = told["facts"], told["crc32"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as fault:
        raise Unreadable from fault
    if checksum != _checksum(tensors):
        raise Unreadable
    return Saved(tensors, facts)


def remove_drafts(path: Path) -> None:
    """Takes away what a killed run left half-written."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        shutil.rmtree(folder, ignore_errors=True)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return value


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
