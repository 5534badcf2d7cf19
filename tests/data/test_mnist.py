"""MNIST from IDX files: tiny ones made here, and the real ones where they lie beside the project."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.data.load import load_data

REAL = Path(__file__).parents[3] / "shared" / "data" / "mnist"
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 28, 28)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for stem in ("train", "t10k"):
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    return tmp_path


def test_pixels_and_labels_are_those_of_the_files(folder: Path) -> None:
    images = load_data(f"mnist:{folder}")
    assert torch.equal(images.x, torch.from_numpy(IMAGES)[:, None].float() / 255)
    assert images.y.tolist() == LABELS.tolist()
    assert images.classes == 10


def test_packed_files_are_the_same(folder: Path) -> None:
    plain = load_data(f"mnist:{folder}", "train")
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    packed = load_data(f"mnist:{folder}", "train")
    assert torch.equal(plain.x, packed.x)
    assert torch.equal(plain.y, packed.y)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("t10k-images-idx3-ubyte", None, ["no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz"]),
        ("t10k-labels-idx1-ubyte", None, ["no t10k-labels-idx1-ubyte"]),
        ("t10k-images-idx3-ubyte", b"", ["00 00 08 03", "empty"]),
        ("t10k-images-idx3-ubyte", b"\0\0\x08", ["00 00 08 03", "00 00 08"]),
        ("t10k-images-idx3-ubyte", idx(IMAGES)[:9], ["bytes", "Fetch the file again"]),
        ("t10k-images-idx3-ubyte", idx(IMAGES)[:-1], ["must have 4720 bytes", "Got 4719", "(6, 28, 28)"]),
        ("t10k-images-idx3-ubyte", idx(IMAGES) + b"\0", ["must have 4720 bytes", "Got 4721"]),
        ("t10k-images-idx3-ubyte", idx(LABELS), ["00 00 08 03", "00 00 08 01"]),
        ("t10k-images-idx3-ubyte", idx(IMAGES[:0]), ["0 test images and 6 labels"]),
        ("t10k-labels-idx1-ubyte", idx(LABELS[:5]), ["6 test images and 5 labels"]),
        ("t10k-labels-idx1-ubyte", idx(LABELS + 1), ["[0, 10)", "2 to 10"]),
        ("t10k-images-idx3-ubyte.gz", b"not gzip", ["Cannot read", "Fetch the file again"]),
        (
            "t10k-images-idx3-ubyte.gz",
            gzip.compress(idx(IMAGES), mtime=0)[:-20],
            ["Cannot read", "Fetch the file again"],
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            gzip.compress(idx(IMAGES), mtime=0)[:40],
            ["Cannot read", "Fetch the file again"],
        ),
    ],
)
def test_a_bad_file_is_refused_in_one_line(folder: Path, name: str, content: bytes | None, parts: list[str]) -> None:
    (folder / name.removesuffix(".gz")).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_data(f"mnist:{folder}")
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real MNIST files are not there")
def test_the_real_files() -> None:
    images = load_data(f"mnist:{REAL}")
    assert images.x.shape == (10_000, 1, 28, 28)
    # Well-known facts: how many of each digit the test set has, and the mean grey level that everybody normalises by.
    assert images.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(float(images.x.mean()) - 0.1325) < 1e-3
