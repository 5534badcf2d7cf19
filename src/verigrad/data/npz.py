"""Images from a NumPy archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from verigrad.core.errors import BadInput
from verigrad.data.images import Images


def load_npz(path: Path) -> Images:
    """Images from `x`, (N, C, H, W) or (N, H, W), uint8 or floats in [0, 1], and `y`, (N,) whole numbers from 0 up.

    An optional whole number `classes` says how many classes there are; without it they are the largest label and one.

    Raises:
        BadInput: the file is missing or no archive, an array is missing or holds objects, or is not as above.
    """
    if not path.is_file():
        raise BadInput(f"There is no file {str(path)!r}.")
    arrays = _read(path)
    x, y = (_tensor(arrays[name], f"The array {name} of {str(path)!r}") for name in ("x", "y"))
    classes = arrays.get("classes")
    if classes is not None and (classes.shape != () or classes.dtype.kind not in "iu" or classes < 1):
        raise BadInput(f"The array classes of {str(path)!r} must be one whole number from 1 up. Got {classes!s:.60}.")
    return Images.of(
        x[:, None] if x.dim() == 3 else x, y, name=str(path), classes=None if classes is None else int(classes)
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file) and not file.seek(0) and file.read(6) != b"\x93NUMPY":
                # NumPy takes any other file for a pickle, and would say so.
                raise BadInput(f"{str(path)!r} is no .npz archive. Use np.savez(path, x=x, y=y).")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise BadInput(f"{str(path)!r} must be an archive of arrays. It is a single array. Use np.savez.")
            if not {"x", "y"} <= set(archive.files):
                found = ", ".join(archive.files) or "nothing"
                raise BadInput(
                    f"{str(path)!r} must hold the arrays x and y. Got {found}. Use np.savez(path, x=x, y=y)."
                )
            return {name: archive[name] for name in ("x", "y", "classes") if name in archive.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise BadInput(
                f"{str(path)!r} holds Python objects, which could run code. Save x and y as plain arrays of numbers."
            ) from None
        raise BadInput(f"Cannot read {str(path)!r}: {error}.") from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"Cannot read {str(path)!r} as an .npz archive: {error}.") from None


def _tensor(array: np.ndarray, what: str) -> torch.Tensor:
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{what} must hold numbers. Got the type {array.dtype}.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    # torch has no arithmetic on the wider unsigned types and wants the machine's byte order.
    wide = array.dtype.kind == "u" and array.dtype.itemsize > 1
    native = array.astype(np.int64) if wide else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(native))
