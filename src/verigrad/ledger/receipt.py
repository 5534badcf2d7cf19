"""Receipts: one digest for each row of each table, written in the row's own transaction; and the seal over them.

A receipt shows that a row is not the one that was recorded. Whoever rewrites a row *and* its receipt changes the seal:
it is kept in the summary, and wherever the summary was published.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence

from verigrad.ledger.errors import EditedLedger
from verigrad.ledger.identity import identity_hash
from verigrad.ledger.schema import APPLICATION_ID, FORMAT, RECEIPTS, TABLES


def digest(part: str, row: Sequence[object]) -> str:
    """sha256 of a row as SQLite gives it back: its values in the order of the columns, bytes by their own sha256."""
    plain = [{"sha256": hashlib.sha256(value).hexdigest()} if isinstance(value, bytes) else value for value in row]
    return hashlib.sha256(json.dumps([part, *plain]).encode()).hexdigest()


def row_name(part: str, row: Sequence[object]) -> str:
    """The values of a row's key columns as JSON; the same in the table and in its receipt."""
    table = TABLES[part]
    columns = list(table.columns)
    return json.dumps([row[columns.index(column)] for column in table.key], default=repr)


def seal(db: sqlite3.Connection) -> str:
    """One sha256, 64 hexadecimal digits, over all receipts of the sealed tables, sorted by table and row."""
    whole = hashlib.sha256()
    for part, row, stamp in db.execute("SELECT part, row, digest FROM receipts ORDER BY part, row"):
        if part not in TABLES or TABLES[part].sealed:
            whole.update(json.dumps([part, row, stamp]).encode() + b"\n")
    return whole.hexdigest()


def check(db: sqlite3.Connection, path: object, expected: str | None = None) -> None:
    """Compares every row with its receipt, and the seal with the summary's and with `expected`.

    Raises:
        EditedLedger: names the first table and row that differ.
    """
    try:
        found = next(_faults(db, expected), None)
    except (sqlite3.Error, ValueError) as error:
        found = f"it cannot be read through ({error})"
    if found is not None:
        raise EditedLedger(f"The ledger {path} was edited or damaged: {found}. Restore the file, or audit again.")


def _faults(db: sqlite3.Connection, expected: str | None) -> Iterator[str]:
    (state,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if state != "ok":
        yield f"SQLite finds {' '.join(str(state).split())}"
    yield from _changed_schema(db)
    for part in TABLES:
        yield from _changed_rows(db, part)
    strange = db.execute(f"SELECT part, row FROM receipts WHERE part NOT IN ({','.join('?' * len(TABLES))})", [*TABLES])
    yield from (f"a receipt names the unknown table {part} (row {row})" for part, row in strange)
    for stored, value in db.execute("SELECT hash, value FROM identity"):
        if stored != identity_hash(json.loads(value)):
            yield "the identity does not have the hash it is stored under"
    sealed = seal(db)
    for (value,) in db.execute("SELECT value FROM summary"):
        told = json.loads(value).get("seal", sealed)
        if told != sealed:
            yield f"the summary carries the seal {told}, the rows give {sealed}"
    if expected is not None and expected != sealed:
        yield f"the seal should be {expected}, the rows give {sealed}"


def _changed_schema(db: sqlite3.Connection) -> Iterator[str]:
    wanted = {name: table.create(name) for name, table in [*TABLES.items(), ("receipts", RECEIPTS)]}
    found = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            yield f"the definition of {name} is not the one of format {FORMAT}"
    if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        yield "the file's header no longer says that it is a ledger"


def _changed_rows(db: sqlite3.Connection, part: str) -> Iterator[str]:
    receipts = dict(db.execute("SELECT row, digest FROM receipts WHERE part = ?", (part,)))
    for row in db.execute(f"SELECT * FROM {part}"):
        name = row_name(part, row)
        stamp = receipts.pop(name, None)
        if stamp is None:
            yield f"{part} row {name} was added without a receipt"
        elif stamp != digest(part, row):
            yield f"{part} row {name} is not the row that was recorded"
    for name in sorted(receipts):
        yield f"{part} row {name} has a receipt but is gone"
