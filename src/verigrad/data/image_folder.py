"""Images from a folder with one folder for each class, alone or one for each split as ImageNet has them."""

from __future__ import annotations

import os
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from verigrad.core.errors import BadInput
from verigrad.data.decoding import Cut, decoded
from verigrad.data.images import Images

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# The folders of a split, where a folder has any.
SPLITS = {"train": ("train",), "test": ("val", "test")}
# For each byte of pixels: itself, and the float32 that it becomes.
BYTES = 1 + 4


def load_image_folder(
    folder: Path, split: str = "test", n: int | None = None, *, cut: Cut | None = None, workers: int | None = None
) -> Images:
    """Images of FOLDER/CLASS/FILE or FOLDER/SPLIT/CLASS/FILE, grey (N, 1, H, W) or in colour (N, 3, H, W).

    Splits are the folders train, and val or else test; a folder without them is the same data under both names. Classes
    are numbered by the sorted names of their folders, in all splits by those in train if it is there. The order is the
    first file of each class, then the second of each, and so on, by sorted names; it does not depend on the workers.
    Hidden files and files of other kinds are passed over. Beside the result, the memory holds a byte for each of its
    values and the few images that are being decoded.

    Args:
        folder: the folder of the class folders, or of the splits.
        split: "train" or "test".
        n: read only the first n images; None reads all.
        cut: how images are brought to one size; None needs images that have one.
        workers: as for `decoded`.

    Raises:
        BadInput: there is no image, one cannot be read, or all together would not fit into memory; without `cut`, one
            has transparency or more than 8 bits, or differs in size or colour from the first.
    """
    root, classes = _layout(folder, split)
    turns = _turns(root, classes)[:n]
    files = [path for path, _ in turns]
    pixels: np.ndarray | None = None
    for i, image in enumerate(decoded(files, cut, workers=workers)):
        if pixels is None:
            _check_memory(len(files), image, folder)
            pixels = np.empty((len(files), *image.shape), dtype=np.uint8)
        if image.shape != pixels.shape[1:]:
            first = f"{str(files[0])!r} is {_size(pixels[0])}, {str(files[i])!r} is {_size(image)}"
            raise BadInput(f"All images must have one size. {first}. imagenet:DIR brings images to one size.")
        pixels[i] = image
    assert pixels is not None  # every class holds an image
    labels = torch.tensor([label for _, label in turns])
    return Images.of(torch.from_numpy(pixels), labels, name=str(folder), classes=len(classes))


def _layout(folder: Path, split: str) -> tuple[Path, list[str]]:
    """The folder of the class folders, and the names of all classes in their order."""
    inner = _folders(folder)
    if not inner:
        raise BadInput(f"{str(folder)!r} must hold one folder of images for each class. It holds no folder.")
    known = [name for names in SPLITS.values() for name in names]
    if not set(inner) <= set(known) or not any(_folders(folder / name) for name in inner):
        return folder, inner
    present = [name for name in SPLITS[split] if name in inner]
    if not present:
        raise BadInput(f"{str(folder)!r} has no {' or '.join(SPLITS[split])}. It holds {', '.join(inner)}.")
    root = folder / present[0]
    classes, own = _folders(folder / "train") if "train" in inner else [], _folders(root)
    if not own:
        raise BadInput(f"{str(root)!r} must hold one folder of images for each class. It holds no folder.")
    if classes and (strange := sorted(set(own) - set(classes))):
        raise BadInput(f"{str(root)!r} holds the class {strange[0]!r}, which is not in {str(folder / 'train')!r}.")
    return root, classes or own


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _turns(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Files with their labels, one of each class in turn."""
    held: list[list[Path]] = []
    for one in classes:
        found = sorted(path for path in (root / one).iterdir() if _is_image(path)) if (root / one).is_dir() else []
        if not found and (root / one).is_dir():
            raise BadInput(f"The class folder {str(root / one)!r} holds no image ({', '.join(SUFFIXES)}).")
        held.append(found)
    return [(path, label) for turn in zip_longest(*held) for label, path in enumerate(turn) if path is not None]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check_memory(count: int, image: np.ndarray, folder: Path) -> None:
    """Refuses what could not be held, rather than be ended for it."""
    if not hasattr(os, "sysconf"):
        return
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (needed := BYTES * count * image.size) > there:
        most = there // (BYTES * image.size)
        told = f"The {count} images of {str(folder)!r} need {needed / 1e9:.1f} GB, and this machine has"
        raise BadInput(f"{told} {there / 1e9:.1f}. Ask for fewer with n (at most {most}), or a smaller crop.")


def _size(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{width}×{height} with {channels} channel{'s' if channels > 1 else ''}"
