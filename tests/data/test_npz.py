"""Images from a NumPy archive."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.data.load import load_data

X = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
Y = np.array([1, 0])


def saved(tmp_path: Path, **arrays: Any) -> str:
    np.savez(tmp_path / "own.npz", **arrays)
    return str(tmp_path / "own.npz")


@pytest.mark.parametrize(
    "x",
    [X, (X / 255).astype(np.float64), (X / 255).astype(np.float32), (X / 255).astype(">f4"), np.asfortranarray(X)],
    ids=["uint8", "float64", "float32", "big-endian", "fortran"],
)
@pytest.mark.parametrize("y", [Y, Y.astype(np.uint8), Y.astype(np.uint16), Y.astype(">i4")], ids=str)
def test_every_plain_type_gives_the_same_images(tmp_path: Path, x: np.ndarray, y: np.ndarray) -> None:
    images = load_data(saved(tmp_path, x=x, y=y))
    assert torch.allclose(images.x, torch.from_numpy(X / 255).float(), atol=1e-7)
    assert images.y.tolist() == [1, 0]
    assert images.classes == 2


def test_one_channel_may_be_left_out(tmp_path: Path) -> None:
    assert load_data(saved(tmp_path, x=X[:, 0], y=Y)).x.shape == (2, 1, 4, 4)


def test_packed_archives_and_class_counts_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "own.npz", x=X, y=Y, classes=np.int64(7), more=np.zeros(3))
    assert load_data(str(tmp_path / "own.npz")).classes == 7


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.trace,)


def test_pickled_objects_are_refused_and_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bomb = np.empty(2, dtype=object)
    bomb[:] = [Bomb(str(trace)), Bomb(str(trace))]
    with pytest.raises(BadInput, match="Python objects, which could run code"):
        load_data(saved(tmp_path, x=X, y=bomb))
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Bomb(str(trace))))
    with pytest.raises(BadInput):
        load_data(str(tmp_path / "raw.npz"))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"x": X}, ["arrays x and y", "Got x."]),
        ({"images": X, "labels": Y}, ["arrays x and y", "images, labels"]),
        ({"x": X.transpose(0, 2, 3, 1), "y": Y}, ["(N, H, W, C)", "transpose"]),
        ({"x": X.reshape(2, -1), "y": Y}, ["(N, C, H, W)", "(2, 48)"]),
        ({"x": X.astype(str), "y": Y}, ["array x", "numbers"]),
        ({"x": X.astype(complex), "y": Y}, ["array x", "numbers", "complex"]),
        ({"x": X.astype(np.int64), "y": Y}, ["uint8, or floats"]),
        ({"x": X.astype(float), "y": Y}, ["[0, 1]", "Divide by 255"]),
        ({"x": X / 127.5 - 1, "y": Y}, ["[0, 1]", "Normalisation"]),
        ({"x": np.full(X.shape, np.nan), "y": Y}, ["finite"]),
        ({"x": X, "y": np.array([0, 1, 1])}, ["shape (2,)", "(3,)"]),
        ({"x": X, "y": np.array([0, -1])}, ["from 0 up", "-1"]),
        ({"x": X, "y": np.array([0.0, 1.0])}, ["whole numbers", "float64"]),
        ({"x": X, "y": np.eye(2, dtype=int)}, ["shape (2,)", "(2, 2)"]),
        ({"x": X[:0], "y": Y[:0]}, ["no images"]),
        ({"x": X, "y": np.array([0, 5]), "classes": np.array(5)}, ["[0, 5)", "0 to 5"]),
        ({"x": X, "y": Y, "classes": np.array([2, 2])}, ["classes", "one whole number"]),
        ({"x": X, "y": Y, "classes": np.array(0)}, ["classes", "from 1 up"]),
    ],
)
def test_a_bad_archive_is_refused_in_one_line(tmp_path: Path, arrays: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        load_data(saved(tmp_path, **arrays))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(BadInput, match=r"own\.npz"):
        load_data(str(tmp_path / "own.npz"))


def test_an_archive_cut_at_any_place_is_refused(tmp_path: Path) -> None:
    whole = Path(saved(tmp_path, x=X, y=Y)).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(BadInput):
            load_data(str(tmp_path / "cut.npz"))


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(BadInput, match="single array"):
        load_data(str(tmp_path / "own.npz"))
