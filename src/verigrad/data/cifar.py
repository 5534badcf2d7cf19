"""CIFAR-10 from its binary version (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from verigrad.core.errors import BadInput
from verigrad.data.images import Images

# One byte of label, then 32×32 red, green and blue.
RECORD = 1 + 3 * 32 * 32
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


def load_cifar10(folder: Path, split: str) -> Images:
    """Images (N, 3, 32, 32) of one split.

    Args:
        folder: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, itself or in cifar-10-batches-bin.
        split: "train" or "test".

    Raises:
        BadInput: a file is missing or is no whole number of records, or a label is not in [0, 10).
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {str(folder)!r}. cifar10:DIR needs the folder of the binary version.")
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    records = np.concatenate([_records(folder / name) for name in FILES[split]])
    x = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return Images.of(x, torch.from_numpy(records[:, 0].copy()), name="cifar10", classes=10)


def _records(path: Path) -> np.ndarray:
    if not path.is_file():
        pickled = path.with_suffix("").is_file() or (path.parent / "cifar-10-batches-py").is_dir()
        hint = " It holds the pickled version, which could run code; fetch the binary version." if pickled else ""
        raise BadInput(f"There is no {path.name} in {str(path.parent)!r}.{hint}")
    raw = np.fromfile(path, dtype=np.uint8)
    if len(raw) == 0 or len(raw) % RECORD:
        raise BadInput(f"{str(path)!r} must have a multiple of {RECORD} bytes. Got {len(raw)}. Fetch the file again.")
    return raw.reshape(-1, RECORD)
