"""CIFAR-10 and CIFAR-100 from their Python versions, which are pickles: only the publisher's own are read.

A pickle can run code as it is read. So a file must have the hash of the one in the publisher's archive, and is then
read by an unpickler that knows nothing but NumPy's arrays.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np

from verigrad.core.errors import BadInput

# Of the files in cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) and cifar-100-python.tar.gz
# (eb9058c3a382ffc7106e4002c42a8d85), as torchvision.datasets.cifar lists them; the archives' are those of the
# publisher's page. MD5 stands where no other hash is published: nobody can make a second file with a given MD5.
MD5 = {
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
LABELS = {"cifar10": b"labels", "cifar100": b"fine_labels"}

_RECONSTRUCT: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
# All that the files name, under the old and the new name of NumPy's module.
KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def read_pickle(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 3072) uint8 and labels (N,) int64, the fine ones, of one file.

    Args:
        path: a file of the Python version.
        name: "cifar10" or "cifar100".

    Raises:
        BadInput: it is not the publisher's file, or names anything but arrays.
    """
    raw = path.read_bytes()
    official, got = MD5[name][path.name], md5(raw, usedforsecurity=False).hexdigest()
    fix = f"verigrad data fetch {name} brings the binary version, which is no pickle"
    if got != official:
        raise BadInput(
            f"{str(path)!r} is a pickle, which could run code, and not the official one: its MD5 must be {official}. "
            f"Got {got}. {fix}."
        )
    try:
        held = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        return held[b"data"], np.asarray(held[LABELS[name]], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"Cannot read {str(path)!r}: {error}. {fix}.") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        known = KNOWN.get((module_name, global_name))
        if known is None:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return known
