"""Images from a folder with one folder for each class."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from verigrad.core.errors import BadInput
from verigrad.data.images import Images

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}


def load_image_folder(folder: Path, n: int | None = None) -> Images:
    """Images of FOLDER/CLASS/FILE, all of one size, grey (N, 1, H, W) or in colour (N, 3, H, W).

    Classes are numbered by their sorted names. The order is the first file of each class, then the second of each, and
    so on, by sorted names. Hidden files and files of other kinds are passed over.

    Args:
        folder: the folder of the class folders.
        n: read only the first n images; None reads all.

    Raises:
        BadInput: there is no image, or one cannot be read, has transparency or more than 8 bits, or differs in size or
            colour from the first.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise BadInput(f"{str(folder)!r} must hold one folder of images for each class. It holds no folder.")
    files = [sorted(path for path in one.iterdir() if _is_image(path)) for one in classes]
    for one, found in zip(classes, files, strict=True):
        if not found:
            raise BadInput(f"The class folder {str(one)!r} holds no image ({', '.join(SUFFIXES)}).")
    turns = [(path, label) for turn in zip_longest(*files) for label, path in enumerate(turn) if path is not None]
    turns = turns[:n]
    pixels = [_read(path) for path, _ in turns]
    for (path, _), image in zip(turns, pixels, strict=True):
        if image.shape != pixels[0].shape:
            first = f"{str(turns[0][0])!r} is {_size(pixels[0])}"
            raise BadInput(f"All images must have one size. {first}, {str(path)!r} is {_size(image)}.")
    labels = torch.tensor([label for _, label in turns])
    return Images.of(torch.from_numpy(np.stack(pixels)), labels, name=str(folder), classes=len(classes))


def _is_image(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _size(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{width}×{height} with {channels} channel{'s' if channels > 1 else ''}"


def _read(path: Path) -> np.ndarray:
    """(C, H, W) uint8."""
    try:
        with Image.open(path) as image:
            if image.mode not in MODES or "transparency" in image.info:
                raise BadInput(f"{str(path)!r} must be 8-bit grey or RGB without transparency. Got {image.mode}.")
            pixels = np.asarray(image.convert(MODES[image.mode]))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"Cannot read the image {str(path)!r}: {reason}.") from None
    return pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
