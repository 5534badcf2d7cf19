"""From a data set's name to its files in a folder: mirrors in turn, each file known by its hash, all files or none."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verigrad.core.errors import BadInput, VerigradError
from verigrad.data.sources import RemoteFile, Source, find_source

# What is being fetched lies here, in the folder that is to hold it; whatever a killed run left in it is removed.
DRAFT = ".fetching"
# Seconds until a mirror must have taken the connection, and between two pieces of a file.
TIMEOUT = (10, 30)
PIECE = 1 << 16

# Called with the name of a file, how many of its bytes are there, and how many it has.
Told = Callable[[str, int, int], None]


class NotFetched(VerigradError):
    """No mirror has given a file. The message is one line: the file, what each mirror did, and the fix."""


class Fetched(NamedTuple):
    """Where the data are: their reference for `load_data`, and whether anything had to be fetched."""

    ref: str
    fresh: bool


class _Refused(Exception):
    """What came from one mirror cannot be used. The message says why."""


def fetch(name: str, out: Path, *, mirrors: Sequence[str] = (), told: Told | None = None) -> Fetched:
    """Puts the files of a data set into a folder, unless they are there already.

    Files kept as they were published are known by their SHA-256, those unpacked from an archive by their size, since
    it is the archive whose hash is known.

    Args:
        name: one of `SOURCES`.
        out: the folder; made if need be.
        mirrors: addresses to try before the known ones. Their files must have the same hashes.
        told: hears how far each file has come.

    Raises:
        BadInput: there is no such data set, `out` is no folder, or a file of that name but of other content is in it.
        NotFetched: no mirror has given the right file. The folder is as it was before.
        OSError: the folder cannot be written.
    """
    source = find_source(name)
    fetched = f"{source.name}:{out}"
    if out.exists() and not out.is_dir():
        raise BadInput(f"{str(out)!r} must be a folder. It is a file. Choose another --out.")
    there = [_is_there(target) for target in _targets(source, out)]
    if all(there):
        return Fetched(fetched, fresh=False)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    draft = out / DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for file in source.files:
            _download(file, (*mirrors, *source.mirrors), draft / file.name, told)
        for ready, target in _unpacked(source, draft, out):
            target.parent.mkdir(exist_ok=True)
            os.replace(ready, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()
    return Fetched(fetched, fresh=True)


class _Target(NamedTuple):
    """A file as it shall lie in the folder, with its hash where that is known."""

    path: Path
    size: int
    sha256: str | None


def _targets(source: Source, out: Path) -> list[_Target]:
    if source.folder is None:
        return [_Target(out / file.name, file.size, file.sha256) for file in source.files]
    return [_Target(out / source.folder / name, size, None) for name, size in source.members.items()]


def _is_there(target: _Target) -> bool:
    """Whether the right file is there; a wrong one is never written over."""
    if not target.path.exists():
        return False
    fault = _fault(target.path, target.size, target.sha256)
    if fault is None:
        return True
    raise BadInput(f"{str(target.path)!r} is there, but not the published file: {fault}. Remove it, or choose --out.")


def _fault(path: Path, size: int, sha256: str | None) -> str | None:
    """What is wrong with a file."""
    import pooch

    if not path.is_file():
        return "it is no file"
    if path.stat().st_size != size:
        return f"it has {path.stat().st_size} bytes in place of {size}"
    if sha256 is not None and (got := pooch.file_hash(str(path))) != sha256:
        return f"its SHA-256 is {got} in place of {sha256}"
    return None


def _download(file: RemoteFile, mirrors: Sequence[str], path: Path, told: Told | None) -> None:
    failures = []
    for mirror in mirrors:
        try:
            _try(f"{mirror.rstrip('/')}/{file.name}", file, path, told)
        except _Refused as reason:
            failures.append(f"{mirror} ({reason})")
        else:
            return
    fix = "Try again later, or name a mirror of your own with --mirror"
    raise NotFetched(f"Cannot fetch {file.name}. Tried {', '.join(failures)}. {fix}.")


def _try(url: str, file: RemoteFile, path: Path, told: Told | None) -> None:
    import pooch
    from requests import exceptions

    # A server that unpacks the file on its way would change its hash.
    meter: Any = _Meter(file, path, told)
    plain = {"Accept-Encoding": "identity"}
    load = pooch.HTTPDownloader(progressbar=meter, chunk_size=PIECE, timeout=TIMEOUT, headers=plain)
    try:
        load(url, str(path), None)
    except exceptions.HTTPError as error:
        raise _Refused(str(error).partition(" for url")[0]) from None
    except exceptions.ChunkedEncodingError:
        raise _Refused("the connection broke off") from None
    except exceptions.Timeout:
        raise _Refused("no answer in time") from None
    except exceptions.SSLError:
        raise _Refused("its certificate is not trusted") from None
    except exceptions.ConnectionError:
        raise _Refused("no connection") from None
    except exceptions.RequestException as error:
        raise _Refused(" ".join(str(error).split())) from None
    fault = _fault(path, file.size, file.sha256)
    if fault is not None:
        raise _Refused(f"wrong file: {fault}")


class _Meter:
    """What pooch takes for a progress bar. It stops a file that is longer than it should be."""

    def __init__(self, file: RemoteFile, path: Path, told: Told | None) -> None:
        self.file, self.path, self.told = file, path, told
        self.total = file.size

    def update(self, n: int) -> None:
        del n  # pooch counts each piece as a whole one
        done = self.path.stat().st_size
        if done > self.file.size:
            raise _Refused(f"wrong file: it has more than {self.file.size} bytes")
        if self.told is not None:
            self.told(self.file.name, done, self.file.size)

    def reset(self) -> None:
        """pooch fills the bar at the end; it is full by then."""

    def close(self) -> None:
        """There is nothing to close."""


def _unpacked(source: Source, draft: Path, out: Path) -> list[tuple[Path, Path]]:
    """Where each file is, and where it shall be."""
    if source.folder is None:
        return [(draft / file.name, out / file.name) for file in source.files]
    pairs = []
    (archive,) = source.files
    with tarfile.open(draft / archive.name) as tar:
        for name, size in source.members.items():
            held = tar.extractfile(f"{source.folder}/{name}")
            assert held is not None  # the archive has the published hash
            with held, (draft / name).open("wb") as file:
                shutil.copyfileobj(held, file, PIECE)
            assert (draft / name).stat().st_size == size
            pairs.append((draft / name, out / source.folder / name))
    return pairs
