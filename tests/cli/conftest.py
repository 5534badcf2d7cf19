"""What the commands are tried on: models outside the package, with their weights and data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from goods import HONEST, SMALL, write
from shell import MODEL, Shell


@pytest.fixture
def verigrad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(capsys)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `brightness.py` and `own.npz`, as the working directory."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "brightness.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    x = generator.random((60, 1, 4, 4), dtype=np.float32)
    y = (x[..., :2].mean((1, 2, 3)) > x[..., 2:].mean((1, 2, 3))).astype(np.int64)
    y[:3] = 1 - y[:3]
    np.savez(folder / "own.npz", x=x, y=y)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of a user: own models, weights and data."""
    folder = tmp_path_factory.mktemp("shop")
    write(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    sys.modules.pop("nets", None)


@pytest.fixture
def audited(verigrad: Shell, shop: Path, tmp_path: Path) -> Path:
    """A finished audit, fresh for each test."""
    if not (shop / "kept").exists():
        assert verigrad(*HONEST, *SMALL, "--out", "kept").code == 0
    return Path(shutil.copytree("kept", tmp_path / "kept"))
