"""A ledger is resumed by its own run, refused to any other, and never written by two."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import IDENTITY, fill, told

from verigrad.ledger.errors import LedgerError, LedgerMismatch
from verigrad.ledger.store import Ledger


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger.sqlite"


def filled(path: Path) -> dict[str, object]:
    with Ledger.create_or_resume(path, IDENTITY) as ledger:
        fill(ledger)
        return told(ledger)


def test_the_same_identity_resumes(path):
    before = filled(path)
    with Ledger.create_or_resume(str(path), dict(reversed(IDENTITY.items()))) as ledger:
        assert told(ledger) == before
        assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sorted(p.name for p in path.parent.iterdir()) == ["ledger.sqlite", "ledger.sqlite.lock"]


def test_another_identity_is_refused_and_the_difference_named(path):
    before = filled(path)
    other = IDENTITY | {"batch": 1, "seed": 3, "versions": {"torch": "2.12.0", "verigrad": "0.1.0"}}
    with pytest.raises(LedgerMismatch) as error:
        Ledger.create_or_resume(path, other)
    message = str(error.value)
    assert "batch is 4 there and 1 here; seed is (absent) there and 3 here; versions.torch is " in message
    assert '"2.13.0" there and "2.12.0" here' in message
    assert "Choose another --out, or delete" in message
    assert "weights" not in message
    assert "\n" not in message
    with Ledger.read(path) as ledger:
        assert told(ledger) == before


def test_a_reader_writes_nothing(path):
    filled(path)
    with Ledger.read(path) as ledger, pytest.raises(LedgerError, match="readonly"):
        ledger.put_note("health", "new", 1)


def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("no database " * 100)
    strange = tmp_path / "strange.sqlite"
    with sqlite3.connect(strange) as db:
        db.execute("CREATE TABLE things (a)")
    db.close()
    later = tmp_path / "later.sqlite"
    filled(later)
    with sqlite3.connect(later) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    (tmp_path / "later.sqlite.lock").unlink()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    told_of = [
        (letter, "is not a ledger"),
        (strange, "another program's"),
        (later, "has format 99"),
        (tmp_path, "folder"),
    ]
    for path, said in told_of:
        for opening in (Ledger.read, lambda p: Ledger.create_or_resume(p, IDENTITY)):
            with pytest.raises(LedgerError, match=said) as error:
                opening(path)
            assert "\n" not in str(error.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_missing_ledger_cannot_be_read(path):
    with pytest.raises(LedgerError, match="There is no ledger at"):
        Ledger.read(path)
    path.touch()
    with pytest.raises(LedgerError, match="There is no ledger at"):
        Ledger.read(path)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_file_without_tables_is_begun_anew(path, journal):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("VACUUM")
    db.close()
    assert filled(path)["units"]


def test_an_identity_that_json_cannot_hold_leaves_no_file(path):
    with pytest.raises(LedgerError, match="identity must hold only"):
        Ledger.create_or_resume(path, {"eps": float("nan")})
    assert not list(path.parent.iterdir())


def test_a_second_writer_is_refused_and_a_reader_is_not(path):
    command = [sys.executable, str(Path(__file__).with_name("recorded.py")), str(path), "hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(LedgerError, match="is being written by another process") as error:
            Ledger.create_or_resume(path, IDENTITY)
        assert "\n" not in str(error.value)
        with Ledger.read(path) as ledger:
            assert len(ledger.units()) == 60
            ledger.check()
        writer.kill()
    with Ledger.create_or_resume(path, IDENTITY) as first:
        assert len(first.units()) == 60
        with pytest.raises(LedgerError, match="is being written"):
            Ledger.create_or_resume(path, IDENTITY)
    Ledger.create_or_resume(path, IDENTITY).close()
