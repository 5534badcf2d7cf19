"""From the name of some data to their images: which forms there are, splits, first n, and the hash."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from verigrad.core.errors import BadInput
from verigrad.data.images import Images, data_hash
from verigrad.data.load import load_data


@pytest.mark.parametrize(("split", "n"), [("train", 1297), ("test", 500)])
def test_digits_have_their_shape_and_range(split: str, n: int) -> None:
    images = load_data("digits", split)
    assert images.x.shape == (n, 1, 8, 8)
    assert images.x.dtype == torch.float32
    assert images.y.dtype == torch.int64
    assert (float(images.x.min()), float(images.x.max())) == (0.0, 1.0)
    assert (images.classes, images.name, len(images)) == (10, "digits", n)
    assert torch.equal(images.ids, torch.arange(n))


def test_the_two_splits_of_the_digits_are_all_of_them_once() -> None:
    raw = sklearn_digits()
    whole = sorted((tuple(image.ravel()), label) for image, label in zip(raw.images, raw.target, strict=True))
    parts = [load_data("digits", split) for split in ("train", "test")]
    x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    assert (
        sorted((tuple((16 * image).ravel().tolist()), int(label)) for image, label in zip(x, y, strict=True)) == whole
    )


@pytest.mark.parametrize("n", [10, 50, 200, 500])
def test_the_first_digits_are_balanced(n: int) -> None:
    assert load_data("digits", n=n).y.bincount().tolist() == [n // 10] * 10


def test_the_first_n_are_the_first_n() -> None:
    whole, part = load_data("digits"), load_data("digits", n=37)
    assert torch.equal(part.x, whole.x[:37])
    assert torch.equal(part.y, whole.y[:37])
    assert torch.equal(part.ids, whole.ids[:37])
    assert part.classes == 10


def test_the_hash_goes_by_content_and_not_by_name() -> None:
    images = load_data("digits", n=20)
    assert data_hash(images) == data_hash(load_data("digits", n=20)) == data_hash(replace(images, name="moved"))
    nudged = images.x.clone()
    nudged[3, 0, 4, 4] += 2**-20
    others = [
        replace(images, x=nudged),
        replace(images, y=images.y.roll(1)),
        replace(images, ids=images.ids + 1),
        replace(images, classes=11),
        load_data("digits", n=21),
    ]
    assert len({data_hash(other) for other in [images, *others]}) == 6


@pytest.mark.parametrize(
    ("ref", "keywords", "parts"),
    [
        ("digits", {"n": 501}, ["has 500 images (test)", "n=501", "at most 500"]),
        ("digits", {"n": 0}, ["at least 1", "Got 0"]),
        ("digits", {"split": "validation"}, ["train or test", "'validation'"]),
        ("digit", {}, ["no data 'digit'", "digits, mnist:DIR"]),
        ("", {}, ["no data ''"]),
        ("nowhere/data", {}, ["no data 'nowhere/data'"]),
        ("nowhere/data.npz", {}, ["no file 'nowhere/data.npz'"]),
        ("mnist:nowhere", {}, ["no folder 'nowhere'", "IDX"]),
        ("cifar10:nowhere", {}, ["no folder 'nowhere'"]),
        ("mnist", {}, ["mnist:DIR"]),
        (__file__, {}, ["Cannot read", "test_load.py"]),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(ref: str, keywords: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        load_data(ref, **keywords)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_images_are_made_from_a_pair_of_tensors() -> None:
    x, y = torch.rand(4, 1, 3, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 0], dtype=torch.int32)
    images = Images.of(x, y)
    assert images.x.dtype == torch.float32
    assert images.y.dtype == torch.int64
    assert images.classes == 3
    bytes_ = Images.of((255 * x).to(torch.uint8), y, classes=5)
    assert float(bytes_.x.max()) <= 1
    assert bytes_.classes == 5
    with pytest.raises(FrozenInstanceError):
        images.classes = 4  # type: ignore[misc]


X = torch.full((4, 1, 5, 5), 0.5)
Y = torch.tensor([0, 1, 2, 1])


def spoiled(value: float) -> torch.Tensor:
    x = X.clone()
    x[2, 0, 1, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "parts"),
    [
        (X[0], Y, ["(N, C, H, W)", "(1, 5, 5)", "x[:, None]"]),
        (X.reshape(4, 25), Y, ["(N, C, H, W)", "(4, 25)"]),
        (X.reshape(4, 5, 5, 1), Y, ["(N, H, W, C)", "transpose(0, 3, 1, 2)"]),
        (X[:0], Y[:0], ["no images"]),
        (X.long(), Y, ["uint8, or floats", "int64"]),
        (X > 0, Y, ["uint8, or floats", "bool"]),
        (spoiled(float("nan")), Y, ["finite", "Image 2"]),
        (spoiled(float("inf")), Y, ["finite", "Image 2"]),
        (spoiled(-0.5), Y, ["[0, 1]", "-0.5", "Normalisation belongs into the model"]),
        (spoiled(255.0), Y, ["[0, 1]", "255", "Divide by 255"]),
        (X, Y[:3], ["shape (4,)", "(3,)"]),
        (X, Y[:, None], ["shape (4,)", "(4, 1)"]),
        (X, Y.float(), ["whole numbers", "float32"]),
        (X, Y - 1, ["from 0 up", "-1 to 1"]),
        (X.numpy(), Y, ["tensors", "ndarray"]),
    ],
)
def test_a_pair_that_is_no_data_is_refused_in_one_line(x: torch.Tensor, y: torch.Tensor, parts: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        Images.of(x, y)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_labels_out_of_the_classes_are_refused() -> None:
    with pytest.raises(BadInput, match=r"\[0, 2\).*0 to 2"):
        Images.of(X, Y, classes=2)


def test_an_npz_is_the_same_under_both_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=X.numpy(), y=Y.numpy())
    ref = str(tmp_path / "own.npz")
    assert data_hash(load_data(ref, "train")) == data_hash(load_data(ref, "test"))
    assert load_data(ref).name == ref
    with pytest.raises(BadInput, match="has 4 images"):
        load_data(ref, n=5)
