"""`verigrad data` against a server on this machine, and without one."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mirrors import described, nobody, serving

from verigrad.data import sources
from verigrad.data.sources import SOURCES, Source

# Two grey images of 2×2 and their labels, twice.
IMAGES = gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 10, 20, 30, 40, 50, 60, 70, 80]))
LABELS = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What an `mnist` of two images has for files; its mirrors are gone."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (mnist,) = (source for source in SOURCES if source.name == "mnist")
    held = {file.name: IMAGES if "images" in file.name else LABELS for file in mnist.files}
    tiny = tuple(described(name, content) for name, content in held.items())
    monkeypatch.setattr(
        sources, "SOURCES", (Source(**{**vars(mnist), "files": tiny, "mirrors": (nobody(), nobody())}),)
    )
    return held


def test_what_was_fetched_can_be_used(verigrad, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verigrad.data.load import load_data

    monkeypatch.chdir(tmp_path)
    with serving(files) as mirror:
        said = verigrad("data", "fetch", "mnist", "--mirror", nobody(), "--mirror", mirror.address)
    assert (said.code, said.out, said.err) == (0, "fetched: --data mnist:data/mnist\n", "")
    assert load_data("mnist:data/mnist", "train").y.tolist() == [7, 9]
    # Without the mirror now.
    assert verigrad("data", "fetch", "mnist").out == "already there: --data mnist:data/mnist\n"


def test_without_a_network_one_line_names_the_mirrors(verigrad, files, tmp_path: Path) -> None:
    told = verigrad("data", "fetch", "mnist", "--out", tmp_path / "new").error
    for mirror in sources.SOURCES[0].mirrors:
        assert f"{mirror} (no connection)" in told
    assert not (tmp_path / "new").exists()


def test_a_wrong_file_is_one_line(verigrad, files, tmp_path: Path) -> None:
    with serving({name: content[:-1] + b"x" for name, content in files.items()}) as mirror:
        told = verigrad("data", "fetch", "mnist", "--out", tmp_path, "--mirror", mirror.address).error
    assert "wrong file: its SHA-256 is" in told
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"mine")
    assert "is there, but not the published file" in verigrad("data", "fetch", "mnist", "--out", tmp_path).error


@pytest.mark.parametrize(("name", "part"), [("nothing", "knows mnist, cifar10, cifar100"), ("digits", "scikit-learn")])
def test_what_cannot_be_fetched_is_one_line(verigrad, name: str, part: str) -> None:
    assert part in verigrad("data", "fetch", name).error


def test_the_list_names_files_hashes_and_mirrors(verigrad) -> None:
    said = verigrad("data", "list")
    assert said.code == 0
    for source in SOURCES:
        for part in (source.name, *source.mirrors, *(file.sha256 for file in source.files)):
            assert part in said.out
    assert "digits" in said.out


def test_alone_it_shows_its_commands(verigrad) -> None:
    said = verigrad("data")
    assert said.code == 0
    assert "fetch" in said.out
    assert "list" in said.out


def test_it_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from verigrad.cli.main import main; from verigrad.data import sources; "
        "sources.SOURCES = tuple(type(one)(**{**vars(one), 'mirrors': ()}) for one in sources.SOURCES); "
        f"main(['data', 'list']); main(['data', 'fetch', 'mnist', '--mirror', {nobody()!r}]); "
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Cannot fetch train-images-idx3-ubyte.gz" in done.stderr
    assert not list(tmp_path.rglob("*.gz"))
