"""Labelled images, checked once when they come in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from verigrad.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Images:
    """Labelled images.

    Args:
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64 in [0, classes).
        ids: (N,) int64, the place of each image in its data; randomness and ledgers go by it.
        classes: how many classes there are.
        name: what the data are called in reports.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    classes: int
    name: str

    def __len__(self) -> int:
        return len(self.x)

    @classmethod
    def of(cls, x: Tensor, y: Tensor, *, name: str = "the data", classes: int | None = None) -> Images:
        """Images from a pair of tensors, checked.

        Args:
            x: (N, C, H, W), uint8, which is divided by 255, or floats in [0, 1].
            y: (N,) of an integer type, from 0 up.
            name: what the data are called in messages and reports.
            classes: how many classes there are; None means the largest label and one.

        Raises:
            BadInput: anything else was given.
        """
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            got = f"{type(x).__name__} and {type(y).__name__}"
            raise BadInput(
                f"Images and labels must be tensors. Got {got}. Give torch.as_tensor(x), torch.as_tensor(y)."
            )
        _check_shape(x, name)
        pixels = _pixels(x, name)
        labels = _labels(y, len(x), name, classes)
        known = int(labels.max()) + 1 if classes is None else classes
        return cls(x=pixels, y=labels, ids=torch.arange(len(x)), classes=known, name=name)


def _check_shape(x: Tensor, name: str) -> None:
    shape = tuple(x.shape)
    if x.dim() != 4:
        hint = " Give x[:, None] for one channel." if x.dim() == 3 else ""
        raise BadInput(f"The images of {name} must have shape (N, C, H, W). Got {shape}.{hint}")
    if x.numel() == 0:
        raise BadInput(f"{name} holds no images: their shape is {shape}.")
    if x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3) and x.shape[2] > 3:
        fix = "which reads as (N, H, W, C). Give x.transpose(0, 3, 1, 2)."
        raise BadInput(f"The images of {name} must have shape (N, C, H, W). Got {shape}, {fix}")


def _pixels(x: Tensor, name: str) -> Tensor:
    if x.dtype == torch.uint8:
        return x.to(torch.float32).div_(255)  # one copy and no second
    if not x.is_floating_point():
        kind = str(x.dtype).removeprefix("torch.")
        raise BadInput(f"The images of {name} must be uint8, or floats in [0, 1]. Got {kind}. Give x.astype('uint8').")
    if not bool(torch.isfinite(x).all()):
        where = int((~torch.isfinite(x.reshape(len(x), -1))).any(1).nonzero()[0])
        raise BadInput(f"The images of {name} must be finite. Image {where} holds NaN or infinity.")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        hint = " Divide by 255." if low >= 0 and high <= 255 else " Normalisation belongs into the model."
        raise BadInput(f"The images of {name} must lie in [0, 1]. Got values from {low:g} to {high:g}.{hint}")
    return x.detach().to(torch.float32).contiguous()


def _labels(y: Tensor, count: int, name: str, classes: int | None) -> Tensor:
    if y.shape != (count,):
        raise BadInput(f"The labels of {name} must have shape ({count},), one for each image. Got {tuple(y.shape)}.")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        kind = str(y.dtype).removeprefix("torch.")
        raise BadInput(f"The labels of {name} must be whole numbers. Got {kind}. Give y.astype('int64').")
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        room = f"in [0, {classes})" if classes is not None else "from 0 up"
        raise BadInput(f"The labels of {name} must be {room}. Got labels from {low} to {high}.")
    return y.to(torch.int64)


def data_hash(images: Images) -> str:
    """SHA-256 of pixels, labels, ids and classes, in hex. The name is left out: moved data are the same data."""
    digest = hashlib.sha256(f"{tuple(images.x.shape)}/{images.classes}".encode())
    for part in (images.x, images.y, images.ids):
        digest.update(part.cpu().contiguous().numpy().data)
    return digest.hexdigest()
