"""CIFAR-10 and CIFAR-100 from their binary layouts: tiny files made here, and real images where they are."""

from __future__ import annotations

import io
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from verigrad.core.errors import BadInput
from verigrad.data.load import load_data

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "test.npz.xz"


def records(count: int, seed: int) -> np.ndarray:
    """(count, 3073) uint8: a label, then the planes."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 3072))
    return np.concatenate([generator.integers(0, 10, (count, 1)), pixels], axis=1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(1, 6):
        records(2, i).tofile(tmp_path / f"data_batch_{i}.bin")
    records(3, 6).tofile(tmp_path / "test_batch.bin")
    return tmp_path


def test_pixels_and_labels_are_those_of_the_files(folder: Path) -> None:
    images = load_data(f"cifar10:{folder}")
    raw = records(3, 6)
    assert images.x.shape == (3, 3, 32, 32)
    assert images.y.tolist() == raw[:, 0].tolist()
    # Red comes first, row by row.
    assert images.x[1, 0, 0, 1] == np.float32(raw[1, 2]) / 255
    assert images.x[1, 2, 31, 31] == np.float32(raw[1, -1]) / 255
    assert images.classes == 10


def test_the_five_training_files_follow_each_other(folder: Path) -> None:
    images = load_data(f"cifar10:{folder}", "train")
    assert images.y.tolist() == [int(label) for i in range(1, 6) for label in records(2, i)[:, 0]]


def test_the_folder_of_the_original_archive_is_found(folder: Path) -> None:
    inner = folder / "outer" / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    (folder / "test_batch.bin").rename(inner / "test_batch.bin")
    assert len(load_data(f"cifar10:{folder / 'outer'}")) == 3


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["no test_batch.bin in"]),
        (b"", ["multiple of 3073", "Got 0"]),
        (records(3, 6).tobytes()[:-1], ["multiple of 3073", "Got 9218"]),
        (bytes([10]) + bytes(3072), ["[0, 10)", "10 to 10"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line(folder: Path, content: bytes | None, parts: list[str]) -> None:
    (folder / "test_batch.bin").unlink()
    if content is not None:
        (folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_data(f"cifar10:{folder}")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def fine_records(count: int, seed: int) -> np.ndarray:
    """(count, 3074) uint8: one of 20 coarse labels, one of 100 fine ones, then the planes."""
    generator = np.random.default_rng(seed)
    labels = [generator.integers(0, 20, (count, 1)), generator.integers(20, 100, (count, 1))]
    return np.concatenate([*labels, generator.integers(0, 256, (count, 3072))], axis=1).astype(np.uint8)


@pytest.mark.parametrize("inner", ["", "cifar-100-binary"])
def test_cifar100_has_its_fine_labels(tmp_path: Path, inner: str) -> None:
    (tmp_path / inner).mkdir(exist_ok=True)
    fine_records(4, 1).tofile(tmp_path / inner / "train.bin")
    fine_records(3, 2).tofile(tmp_path / inner / "test.bin")
    for split, raw in (("train", fine_records(4, 1)), ("test", fine_records(3, 2))):
        images = load_data(f"cifar100:{tmp_path}", split)
        assert images.y.tolist() == raw[:, 1].tolist()
        assert torch.equal(images.x, torch.from_numpy(raw[:, 2:].reshape(-1, 3, 32, 32).copy()) / 255)
        assert images.classes == 100


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["no test.bin in", "verigrad data fetch cifar100"]),
        (fine_records(2, 1).tobytes()[:-1], ["multiple of 3074", "Got 6147"]),
        (bytes([0, 100]) + bytes(3072), ["[0, 100)", "100 to 100"]),
    ],
)
def test_a_bad_file_of_cifar100_is_refused_in_one_line(tmp_path: Path, content: bytes | None, parts: list[str]) -> None:
    if content is not None:
        (tmp_path / "test.bin").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_data(f"cifar100:{tmp_path}")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.skipif(not REAL.is_file(), reason="the real CIFAR-10 images are not there")
def test_the_real_images(tmp_path: Path) -> None:
    with np.load(io.BytesIO(lzma.decompress(REAL.read_bytes()))) as archive:
        stream, ends = archive["data"].tobytes(), np.cumsum(archive["lengths"][:20].astype(int))
        labels = archive["labels"][:20]
    streams = [stream[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in streams])
    planes = pixels.transpose(0, 3, 1, 2).reshape(20, -1)
    np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tofile(tmp_path / "test_batch.bin")
    images = load_data(f"cifar10:{tmp_path}")
    # The first test images are known to be a cat, two ships, an airplane and a frog.
    assert images.y[:5].tolist() == [3, 8, 8, 0, 6]
    assert torch.equal(images.x, torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 255)
