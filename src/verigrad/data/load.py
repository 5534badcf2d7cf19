"""From the name of some data to their images."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from verigrad import spec
from verigrad.core.errors import BadInput
from verigrad.data.images import Images

FORMS = (
    "digits, mnist:DIR, cifar10:DIR, cifar100:DIR, imagenet:DIR, FILE.npz, "
    "or a folder with one folder of images for each class"
)
NEED_FOLDER = ("mnist", "cifar10", "cifar100", "imagenet")


def load_data(ref: str, split: str = "test", n: int | None = None) -> Images:
    """The first n images of some data, in their own order.

    Args:
        ref: `digits`, `mnist:DIR`, `cifar10:DIR`, `cifar100:DIR` (its 100 fine classes), a path that ends in .npz, a
            folder of images by class that have one size, or `imagenet:DIR`, a folder of images of any size, of which
            the middle 224×224 are taken when the short side is 256; `imagenet(resize=72,crop=64):DIR` sets the two.
        split: "train" or "test". Archives, and folders without train and val, have no splits: they are what they are
            under both names.
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
    if colon and name == "mnist":
        from verigrad.data.mnist import load_mnist

        return load_mnist(Path(folder).expanduser(), split)
    if colon and name in ("cifar10", "cifar100"):
        from verigrad.data.cifar import CIFAR10, CIFAR100, load_cifar

        return load_cifar(CIFAR10 if name == "cifar10" else CIFAR100, Path(folder).expanduser(), split)
    if colon and name.partition("(")[0] == "imagenet":
        return _imagenet(name, Path(folder).expanduser(), split, n)
    path = Path(ref).expanduser()
    if path.suffix == ".npz":
        from verigrad.data.npz import load_npz

        return load_npz(path)
    if ref and path.is_dir():
        from verigrad.data.image_folder import load_image_folder

        return load_image_folder(path, split, n)
    if path.is_file():
        raise BadInput(f"Cannot read {ref!r} as data. It must be {FORMS}.")
    if name in NEED_FOLDER:
        raise BadInput(f"The data {name} need their folder. Write {name}:DIR.")
    raise BadInput(f"There are no data {ref!r}. They must be {FORMS}.")


def _imagenet(settings: str, folder: Path, split: str, n: int | None) -> Images:
    from verigrad.data.decoding import Cut
    from verigrad.data.image_folder import load_image_folder

    try:
        pairs = spec.read(settings).pairs or {}
        sizes = {key: int(spec.bare(value)) for key, value in pairs.items()}
    except (spec.Unreadable, spec.Mismatch, ValueError):
        sizes = {"": 0}
    if not set(sizes) <= {one.name for one in fields(Cut)}:
        raise BadInput(f"Write imagenet:DIR, or such as imagenet(resize=256,crop=224):DIR. Got {settings!r}.")
    cut = Cut(**sizes)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {str(folder)!r}. imagenet:DIR needs a folder of images by class.")
    return load_image_folder(folder, split, n, cut=cut)
