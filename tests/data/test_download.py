"""Fetching from a server on this machine: the right file, wrong, short, long and missing ones, and no server at all."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrors import Mirror, described, nobody, packed, serving

from verigrad.core.errors import BadInput
from verigrad.data import cifar, sources
from verigrad.data.cifar_pickles import MD5
from verigrad.data.download import NotFetched, fetch
from verigrad.data.mnist import STEMS
from verigrad.data.sources import SOURCES, Source, find_source

FILES = {"one.gz": random.Random(1).randbytes(150_000), "two.gz": random.Random(2).randbytes(1 << 16)}


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """The mirror of a data set `pair`, which has two files, and of `archive`, which has one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    members = {"records.bin": b"records", "more.bin": b"more"}
    tar = packed({f"inner/{name}": content for name, content in {**members, "readme.html": b"<p>"}.items()})
    with serving({**FILES, "all.tar.gz": tar}) as found:
        pair = Source(
            name="pair",
            summary="",
            files=tuple(described(name, content) for name, content in FILES.items()),
            mirrors=(found.address,),
        )
        archive = Source(
            name="archive",
            summary="",
            files=(described("all.tar.gz", tar),),
            mirrors=(found.address,),
            folder="inner",
            members={name: len(content) for name, content in members.items()},
        )
        monkeypatch.setattr(sources, "SOURCES", (pair, archive))
        yield found


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_files_come_and_are_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "pair"
    seen: dict[str, list[int]] = {}
    fetched = fetch("pair", out, told=lambda name, done, size: seen.setdefault(name, [size]).append(done))
    assert fetched == (f"pair:{out}", True)
    assert {name: (out / name).read_bytes() for name in names(out)} == FILES
    for name, (size, *done) in seen.items():
        assert (size, done[-1]) == (len(FILES[name]), len(FILES[name]))
        assert done == sorted(done)
    asked = list(mirror.asked)
    assert fetch("pair", out) == (f"pair:{out}", False)
    assert mirror.asked == asked == list(FILES)


def test_of_an_archive_the_members_are_kept(mirror: Mirror, tmp_path: Path) -> None:
    assert fetch("archive", tmp_path).fresh
    assert names(tmp_path) == ["inner/more.bin", "inner/records.bin"]
    assert (tmp_path / "inner" / "records.bin").read_bytes() == b"records"
    assert not fetch("archive", tmp_path).fresh
    (tmp_path / "inner" / "more.bin").unlink()
    assert fetch("archive", tmp_path).fresh
    assert (tmp_path / "inner" / "more.bin").read_bytes() == b"more"


@pytest.mark.parametrize(
    ("files", "settings", "reason"),
    [
        ({}, {}, "404 Client Error: Not Found"),
        ({"one.gz": FILES["one.gz"][:-1]}, {}, "wrong file: it has 149999 bytes in place of 150000"),
        ({"one.gz": FILES["one.gz"] + bytes(1)}, {}, "wrong file: it has more than 150000 bytes"),
        ({"one.gz": FILES["one.gz"][:-1] + bytes(1)}, {}, "wrong file: its SHA-256 is "),
        (FILES, {"broken_off": 1000}, "the connection broke off"),
    ],
    ids=["missing", "short", "long", "other", "broken-off"],
)
def test_after_a_bad_mirror_the_next_is_tried(
    mirror: Mirror, tmp_path: Path, files: dict[str, bytes], settings: dict[str, int], reason: str
) -> None:
    assert hashlib.sha256(FILES["one.gz"][:-1] + bytes(1)).digest() != hashlib.sha256(FILES["one.gz"]).digest()
    with serving(files, **settings) as bad:
        fetch("pair", tmp_path, mirrors=[bad.address])
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == FILES
        assert bad.asked == list(FILES)
        # Where that is the only one, the line says what it did, and nothing is left behind.
        (only,) = [source for source in sources.SOURCES if source.name == "pair"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "SOURCES", (Source(**{**vars(only), "mirrors": (bad.address + "/",)}),))
            with pytest.raises(NotFetched) as caught:
                fetch("pair", tmp_path / "fresh" / "pair")
    told = str(caught.value)
    assert told.startswith(f"Cannot fetch one.gz. Tried {bad.address}/ ({reason}")
    assert "\n" not in told
    assert not (tmp_path / "fresh").exists()


def test_a_server_that_would_unpack_the_file_on_its_way_does_not(mirror: Mirror, tmp_path: Path) -> None:
    with serving(FILES, gzip=True) as eager:
        assert fetch("pair", tmp_path, mirrors=[eager.address]).fresh
        assert eager.asked == list(FILES)
    assert mirror.asked == []


def test_without_a_network_all_mirrors_are_named_and_nothing_is_left(mirror: Mirror, tmp_path: Path) -> None:
    (pair, _) = sources.SOURCES
    gone = (nobody(), nobody())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SOURCES", (Source(**{**vars(pair), "mirrors": gone}),))
        with pytest.raises(NotFetched) as caught:
            fetch("pair", tmp_path, mirrors=["nonsense://here"])
    told = str(caught.value)
    assert "nonsense://here (No connection adapters" in told
    assert all(f"{address} (no connection)" in told for address in gone)
    assert "--mirror" in told
    assert names(tmp_path) == []
    assert tmp_path.exists()


def test_a_second_file_that_fails_takes_the_first_with_it(mirror: Mirror, tmp_path: Path) -> None:
    (pair, _) = sources.SOURCES
    with serving({"one.gz": FILES["one.gz"]}) as half, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SOURCES", (Source(**{**vars(pair), "mirrors": (half.address,)}),))
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(NotFetched, match=r"Cannot fetch two\.gz"):
            fetch("pair", tmp_path)
        assert half.asked == ["one.gz", "two.gz"]
    assert names(tmp_path) == ["mine.txt"]


def test_what_a_killed_run_left_is_removed(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / ".fetching").mkdir()
    (tmp_path / ".fetching" / "one.gz").write_bytes(b"half")
    fetch("pair", tmp_path)
    assert names(tmp_path) == sorted(FILES)


@pytest.mark.parametrize("content", [b"short", FILES["two.gz"][:-1] + bytes(1)])
def test_a_file_of_other_content_is_not_written_over(mirror: Mirror, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "two.gz").write_bytes(content)
    with pytest.raises(BadInput, match=r"two\.gz' is there, but not the published file: it.*in place of"):
        fetch("pair", tmp_path)
    assert (tmp_path / "two.gz").read_bytes() == content
    assert mirror.asked == []


def test_a_file_in_place_of_the_folder_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="must be a folder"):
        fetch("mnist", tmp_path / "file")
    with pytest.raises(BadInput, match=r"knows mnist, cifar10, cifar100\. Got 'imagenet'"):
        fetch("imagenet", tmp_path)
    with pytest.raises(BadInput, match="come with scikit-learn"):
        fetch("digits", tmp_path)


def test_what_is_fetched_is_what_the_loaders_read() -> None:
    for source in SOURCES:
        for file in source.files:
            assert len(bytes.fromhex(file.sha256)) == 32
        assert all(mirror.startswith("https://") and not mirror.endswith("/") for mirror in source.mirrors)
    stems = {f"{stem}-{what}" for stem in STEMS.values() for what in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")}
    assert {file.name for file in find_source("mnist").files} == stems
    for version, train in ((cifar.CIFAR10, 50_000), (cifar.CIFAR100, 50_000)):
        source = find_source(version.name)
        assert source.folder == version.folder
        assert set(source.members) == {name for split in version.files.values() for name in split}
        for split, count in (("train", train), ("test", 10_000)):
            sizes = sum(source.members[name] for name in version.files[split])
            assert sizes == count * (version.labels + cifar.PIXELS)
        assert set(MD5[version.name]) == {Path(name).stem for name in source.members}
