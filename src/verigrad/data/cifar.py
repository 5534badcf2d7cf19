"""CIFAR-10 and CIFAR-100 from their binary versions (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from verigrad.core.errors import BadInput
from verigrad.data.cifar_pickles import read_pickle
from verigrad.data.images import Images

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, kw_only=True)
class Version:
    """How one of the two is laid out.

    Args:
        name: what it is called in references and messages.
        classes: how many there are.
        labels: bytes of labels before the 32×32 red, green and blue of a record. The last one counts: in CIFAR-100 the
            first is one of 20 coarse classes, the second one of the 100 fine ones.
        files: the binary files of each split, in order.
        folder, pickled: the folders in which the two archives of the publisher hold their files.
    """

    name: str
    classes: int
    labels: int
    files: dict[str, tuple[str, ...]]
    folder: str
    pickled: str


CIFAR10 = Version(
    name="cifar10",
    classes=10,
    labels=1,
    files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
    folder="cifar-10-batches-bin",
    pickled="cifar-10-batches-py",
)
CIFAR100 = Version(
    name="cifar100",
    classes=100,
    labels=2,
    files={"train": ("train.bin",), "test": ("test.bin",)},
    folder="cifar-100-binary",
    pickled="cifar-100-python",
)


def load_cifar(version: Version, folder: Path, split: str) -> Images:
    """Images (N, 3, 32, 32) of one split.

    Args:
        version: `CIFAR10` or `CIFAR100`.
        folder: holds the files of the binary version, itself or in the folder of the publisher's archive. Where there
            is none, those of the Python version are read, if they are the publisher's own (see `cifar_pickles`).
        split: "train" or "test".

    Raises:
        BadInput: a file is missing or is no whole number of records, a label is not in [0, classes), or a pickle is
            not the publisher's.
    """
    if not folder.is_dir():
        form = f"{version.name}:DIR needs the folder of the binary version"
        raise BadInput(f"There is no folder {str(folder)!r}. {form}: verigrad data fetch {version.name}.")
    inner = folder / version.folder
    binary = inner if inner.is_dir() else folder
    names = version.files[split]
    if not (binary / names[0]).is_file() and (place := _pickled(version, folder, names[0])) is not None:
        pairs = [read_pickle(place / Path(name).stem, version.name) for name in names]
        pixels, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    else:
        records = np.concatenate([_records(binary / name, version) for name in names])
        pixels, labels = records[:, version.labels :], records[:, version.labels - 1]
    x = torch.from_numpy(pixels.reshape(-1, 3, 32, 32).copy())
    return Images.of(x, torch.from_numpy(labels.copy()), name=version.name, classes=version.classes)


def _pickled(version: Version, folder: Path, name: str) -> Path | None:
    """Where the pickle of this binary file lies, if anywhere."""
    places = (folder, folder / version.pickled)
    return next((place for place in places if (place / Path(name).stem).is_file()), None)


def _records(path: Path, version: Version) -> np.ndarray:
    if not path.is_file():
        fix = f"verigrad data fetch {version.name} brings the binary version"
        raise BadInput(f"There is no {path.name} in {str(path.parent)!r}. {fix}.")
    raw = np.fromfile(path, dtype=np.uint8)
    record = version.labels + PIXELS
    if len(raw) == 0 or len(raw) % record:
        raise BadInput(f"{str(path)!r} must have a multiple of {record} bytes. Got {len(raw)}. Fetch the file again.")
    return raw.reshape(-1, record)
