"""`verigrad train` takes every network of the catalog through an epoch of each data set that fits it."""

from __future__ import annotations

import io
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verigrad.models.loading import load_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from test_models import CASES, Case

REAL = Path(__file__).parents[3] / "shared" / "data"
COUNT = 300
FIRST_MULTIPLES = {"sonet": 8}
"""Networks that halve images exactly, and what the sides must be multiples of: 28 is none of 8."""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first real images, as an archive."""
    with np.load(io.BytesIO(lzma.decompress((REAL / "cifar10" / "test.npz.xz").read_bytes()))) as packed:
        stream, lengths, labels = packed["data"].tobytes(), packed["lengths"][:COUNT], packed["labels"][:COUNT]
    ends = np.cumsum(lengths.astype(np.int64))
    images = [
        np.asarray(Image.open(io.BytesIO(stream[end - size : end]))) for end, size in zip(ends, lengths, strict=True)
    ]
    path = tmp_path_factory.mktemp("cifar") / "cifar.npz"
    np.savez(path, x=np.stack(images).transpose(0, 3, 1, 2), y=labels.astype(np.int64))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
@pytest.mark.parametrize(("data", "size"), [("digits", 8), ("mnist", 28), ("cifar", 32)])
def test_an_epoch(verigrad, tmp_path: Path, request, case: Case, data: str, size: int) -> None:
    if data != "digits" and not REAL.is_dir():
        pytest.skip(f"no real images in {REAL}")
    if size < case.shape[-1] or size % FIRST_MULTIPLES.get(case.name, 1):
        pytest.skip(f"{case.name} is for other sizes")
    ref = {"digits": "digits", "mnist": f"mnist:{REAL / 'mnist'}"}.get(data) or request.getfixturevalue("cifar")
    run = ("train", "--model", case.spec, "--data", ref, "--n", COUNT, "--batch", 50, "--epochs", 1, "--lr", 0.01)
    said = verigrad(*run, "--out", tmp_path / "model")
    assert said.code == 0, said.err
    assert "epoch 1: cross_entropy" in said.out
    assert not load_model(str(tmp_path / "model")).training
