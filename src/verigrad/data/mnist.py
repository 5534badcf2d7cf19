"""MNIST from its four IDX files, packed by gzip or not (LeCun et al. 1998, http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from verigrad.core.errors import BadInput
from verigrad.data.images import Images

STEMS = {"train": "train", "test": "t10k"}


def load_mnist(folder: Path, split: str) -> Images:
    """Images (N, 1, H, W) of one split.

    Args:
        folder: holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each with or without .gz.
        split: "train" or "test".

    Raises:
        BadInput: a file is missing, unreadable, of another kind or cut short, or the two do not belong together.
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {str(folder)!r}. mnist:DIR needs the folder of the four IDX files.")
    x = read_idx(_file(folder, f"{STEMS[split]}-images-idx3-ubyte"), dimensions=3)
    y = read_idx(_file(folder, f"{STEMS[split]}-labels-idx1-ubyte"), dimensions=1)
    if len(x) != len(y):
        raise BadInput(
            f"MNIST in {str(folder)!r} has {len(x)} {split} images and {len(y)} labels. They must be as many."
        )
    return Images.of(torch.from_numpy(x)[:, None], torch.from_numpy(y), name="mnist", classes=10)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadInput(f"There is no {name} or {name}.gz in {str(folder)!r}. mnist:DIR needs all four IDX files.")


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """A uint8 array from an IDX file: 2 zero bytes, type 8, the number of dimensions, the sizes, the bytes.

    Raises:
        BadInput: the file cannot be unpacked, starts otherwise, or is shorter or longer than its sizes say.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"Cannot read {str(path)!r}: {error}. Fetch the file again.") from None
    start = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if raw[:4] != magic:
        got = f"Got {raw[:4].hex(' ')}." if raw else "The file is empty."
        raise BadInput(f"{str(path)!r} must start with the IDX bytes {magic.hex(' ')}. {got}")
    shape = [int(size) for size in np.frombuffer(raw[4:start].ljust(4 * dimensions, b"\0"), dtype=">u4")]
    if len(raw) != start + math.prod(shape):
        expected = f"{start + math.prod(shape)} bytes for its sizes {tuple(shape)}"
        raise BadInput(f"{str(path)!r} must have {expected}. Got {len(raw)}. Fetch the file again.")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy()
