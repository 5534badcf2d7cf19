"""CIFAR from the pickles of its Python version: the published files alone, and even those run nothing.

The files are made here as Python 2 wrote the published ones; their hashes are put in the place of the published ones.
"""

from __future__ import annotations

import os
import pickle
from hashlib import md5
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from verigrad.core.errors import BadInput
from verigrad.data import cifar_pickles
from verigrad.data.load import load_data


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes alike as the strings of Python 2."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def write(path: Path, held: Any) -> None:
    with path.open("wb") as file:
        Python2(file, protocol=2).dump(held)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def known(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Takes what lies in a folder for the published files."""
    hashes = {path.name: md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(cifar_pickles, "MD5", {name: hashes})


def batch(count: int, seed: int, *, labels: str, classes: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {
        "batch_label": f"batch {seed}",
        labels: generator.integers(0, classes, count).tolist(),
        "data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"{i}.png" for i in range(count)],
    }


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-py"])
def test_the_published_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    folder = tmp_path / inner
    folder.mkdir(exist_ok=True)
    batches = [batch(2, seed, labels="labels", classes=10) for seed in range(6)]
    for name, held in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], batches, strict=True):
        write(folder / name, held)
    known(monkeypatch, "cifar10", folder)
    train, test = load_data(f"cifar10:{tmp_path}", "train"), load_data(f"cifar10:{tmp_path}")
    assert train.y.tolist() == [label for held in batches[:5] for label in held["labels"]]
    assert test.y.tolist() == batches[5]["labels"]
    pixels = np.concatenate([held["data"] for held in batches[:5]]).reshape(-1, 3, 32, 32)
    assert np.array_equal(train.x.numpy(), pixels.astype(np.float32) / 255)


def test_the_fine_labels_of_cifar100_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {**batch(5, 1, labels="fine_labels", classes=100), "coarse_labels": [0] * 5}
    write(tmp_path / "test", held)
    known(monkeypatch, "cifar100", tmp_path)
    images = load_data(f"cifar100:{tmp_path}")
    assert images.y.tolist() == held["fine_labels"]
    assert images.classes == 100


def test_any_other_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "test_batch", batch(2, 1, labels="labels", classes=10))
    with pytest.raises(BadInput) as caught:
        load_data(f"cifar10:{tmp_path}")
    told = str(caught.value)
    assert "a pickle, which could run code, and not the official one" in told
    assert "40351d587109b95175f43aff81a1287e" in told
    assert "verigrad data fetch cifar10" in told
    assert "\n" not in told


class Command:
    """What would make a folder if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_even_a_file_with_the_right_hash_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(Command(tmp_path / "made"), protocol=2))
    known(monkeypatch, "cifar10", folder)
    with pytest.raises(BadInput, match=r"test_batch': it names (posix|nt)\.mkdir"):
        load_data(f"cifar10:{folder}")
    assert not (tmp_path / "made").exists()
    pickle.loads((folder / "test_batch").read_bytes())  # the command is a real one
    assert (tmp_path / "made").exists()


def test_the_binary_version_goes_first(tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(b"anything")
    np.zeros((1, 3073), np.uint8).tofile(tmp_path / "test_batch.bin")
    assert len(load_data(f"cifar10:{tmp_path}")) == 1
