"""From the name of some data to their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from verigrad.core.errors import BadInput
from verigrad.data.images import Images

FORMS = "digits, mnist:DIR, cifar10:DIR, FILE.npz, or a folder with one folder of images for each class"


def load_data(ref: str, split: str = "test", n: int | None = None) -> Images:
    """The first n images of some data, in their own order.

    Args:
        ref: `digits`, `mnist:DIR`, `cifar10:DIR`, a path that ends in .npz, or a folder of images by class.
        split: "train" or "test". Archives and folders have no splits: they are what they are under both names.
        n: how many; None means all.

    Raises:
        BadInput: ref is none of these, the data cannot be read, or there are fewer than n.
    """
    if split not in ("train", "test"):
        raise BadInput(f"The split must be train or test. Got {split!r}.")
    if n is not None and n < 1:
        raise BadInput(f"The number of images must be at least 1. Got {n}.")
    images = replace(_load(ref, split, n), name=ref)
    if n is None or n == len(images):
        return images
    if n > len(images):
        raise BadInput(f"{ref} has {len(images)} images ({split}). Got n={n}. Ask for at most {len(images)}.")
    return replace(images, x=images.x[:n].clone(), y=images.y[:n], ids=images.ids[:n])


def _load(ref: str, split: str, n: int | None) -> Images:
    name, colon, folder = ref.partition(":")
    if ref == "digits":
        from verigrad.data.digits import load_digits

        return load_digits(split)
    if name == "mnist" and colon:
        from verigrad.data.mnist import load_mnist

        return load_mnist(Path(folder).expanduser(), split)
    if name == "cifar10" and colon:
        from verigrad.data.cifar import load_cifar10

        return load_cifar10(Path(folder).expanduser(), split)
    path = Path(ref).expanduser()
    if path.suffix == ".npz":
        from verigrad.data.npz import load_npz

        return load_npz(path)
    if ref and path.is_dir():
        from verigrad.data.image_folder import load_image_folder

        return load_image_folder(path, n)
    if path.is_file():
        raise BadInput(f"Cannot read {ref!r} as data. It must be {FORMS}.")
    if name in ("mnist", "cifar10"):
        raise BadInput(f"The data {name} need their folder. Write {name}:DIR.")
    raise BadInput(f"There are no data {ref!r}. They must be {FORMS}.")
