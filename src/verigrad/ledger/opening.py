"""How a ledger's file is found, made, locked and told from other files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from verigrad.ledger.errors import LedgerError, LedgerMismatch
from verigrad.ledger.identity import canonical, differences, identity_hash
from verigrad.ledger.receipt import digest, row_name
from verigrad.ledger.schema import APPLICATION_ID, FORMAT, RECEIPTS, TABLES


class _Unreadable(LedgerError):
    """SQLite cannot open the file as it is."""


class Opened(NamedTuple):
    """A connection and, for a writer, the connection that holds the writer's lock."""

    db: sqlite3.Connection
    lock: sqlite3.Connection | None


def open_to_write(path: Path, identity: Mapping[str, Any]) -> Opened:
    """Opens or makes the ledger of `identity`, in write-ahead mode, as its only writer.

    A file that a killed process left without tables counts as absent. synchronous=NORMAL: a commit survives the death
    of the process at any moment, since it lies with the operating system; a power cut may lose the last commits, never
    part of one, and what is lost is computed again with the same numbers. So no unit waits for the disk.

    Raises:
        LedgerError: the file is no ledger, cannot be written, or another process is writing it.
        LedgerMismatch: the ledger belongs to another identity.
    """
    text = canonical(identity)
    _look(path, "rw", identity)  # before the lock's file is made, so that nothing is left beside a file that is refused
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            lock = undo.enter_context(closing(_lock(path)))
            db = undo.enter_context(closing(sqlite3.connect(path, isolation_level=None, timeout=30)))
            if not _look(path, "rw", identity):
                _create(db, text, identity_hash(identity))
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            undo.pop_all()
            return Opened(db, lock)
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"The ledger {path} cannot be written: {error}. Choose another --out.") from None


def open_to_read(path: Path) -> Opened:
    """Opens a ledger that exists; nothing can be written through it. A writer may be at work meanwhile.

    Raises:
        LedgerError: there is no such file, or it is no ledger.
    """
    try:
        there = _look(path, "ro")
    except _Unreadable:
        there = _look(path, "rw")  # a process killed at the right moment leaves a file that SQLite must first mend
    if not there:
        raise LedgerError(f"There is no ledger at {path}. Give the folder of an audit, or run the audit first.")
    return Opened(_connect(path, "ro"), None)


def shut(opened: Opened) -> None:
    """Closes. A last writer leaves one file that stands alone, without a log beside it."""
    if opened.lock is not None:
        opened.db.execute("PRAGMA busy_timeout = 0")
        with suppress(sqlite3.OperationalError):  # somebody is reading: the log stays, and is read with the file
            opened.db.execute("PRAGMA journal_mode = DELETE")
    opened.db.close()
    if opened.lock is not None:
        opened.lock.close()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=30)


def _lock(path: Path) -> sqlite3.Connection:
    """SQLite's own exclusive lock on an empty file beside the ledger: it goes when its process dies, however it dies.

    The file is left there: taking it away could let two writers lock two different files of the same name.
    """
    lock = sqlite3.connect(f"{path}.lock", isolation_level=None, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        message = f"The ledger {path} is being written by another process. Wait for it, or choose another --out."
        raise LedgerError(message) from None
    return lock


def _look(path: Path, mode: str, identity: Mapping[str, Any] | None = None) -> bool:
    """Whether a ledger stands at the path; if `identity` is given, it must be that ledger's."""
    if path.is_dir():
        raise LedgerError(f"The path {path} is a folder. Give a file in it, such as {path / 'ledger.sqlite'}.")
    if not path.exists() or path.stat().st_size == 0:
        return False
    try:
        with closing(_connect(path, mode)) as db:
            stored = _stored_identity(path, db)
    except (sqlite3.Error, UnicodeError) as error:  # the latter: a damaged file can quote bytes that are no text
        raise _Unreadable(f"The file {path} is not a ledger: {error}. Give another path.") from None
    if stored is not None and identity is not None:
        _compare(path, stored, json.loads(canonical(identity)))
    return stored is not None


def _stored_identity(path: Path, db: sqlite3.Connection) -> dict[str, Any] | None:
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not tables and application == 0:
        return None
    if application != APPLICATION_ID:
        raise LedgerError(f"The file {path} is not a ledger: it is another program's SQLite file. Give another path.")
    if version != FORMAT:
        message = f"The ledger {path} has format {version}; this verigrad knows format {FORMAT}."
        raise LedgerError(f"{message} Use the verigrad that wrote it, or audit again.")
    row = db.execute("SELECT value FROM identity").fetchone()
    try:
        return json.loads(row[0])
    except (TypeError, ValueError):
        raise LedgerError(f"The ledger {path} has lost its identity. Restore the file, or audit again.") from None


def _compare(path: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    different = differences(stored, given)
    if different:
        told = "; ".join(f"{key} is {was} there and {now} here" for key, was, now in different)
        message = f"The ledger {path} belongs to another run: {told}. Choose another --out, or delete that ledger."
        raise LedgerMismatch(message)


def _create(db: sqlite3.Connection, text: str, stamp: str) -> None:
    """Tables, header and identity in one transaction: the file is a whole ledger or an empty one."""
    db.execute("BEGIN IMMEDIATE")
    for name, table in [*TABLES.items(), ("receipts", RECEIPTS)]:
        db.execute(table.create(name))
    row = (stamp, text)
    db.execute("INSERT INTO identity VALUES (?, ?)", row)
    receipt = ("identity", row_name("identity", row), digest("identity", row))
    db.execute("INSERT INTO receipts VALUES (?, ?, ?)", receipt)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")
