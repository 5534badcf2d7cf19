"""A ledger that was edited says so, and where."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from recorded import IDENTITY, fill, told, unit

from verigrad.ledger.errors import EditedLedger, LedgerError
from verigrad.ledger.store import Ledger

KEY = unit(1)[0].key


@pytest.fixture
def path(tmp_path) -> Path:
    with Ledger.create_or_resume(tmp_path / "ledger.sqlite", IDENTITY) as ledger:
        fill(ledger)
        ledger.check()
        ledger.check(ledger.seal())
    return tmp_path / "ledger.sqlite"


def edit(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for statement in statements:
            assert db.execute(statement).rowcount != 0
    db.close()


EDITS = {
    "a sample's label": ("UPDATE samples SET label = 2 WHERE sample = 1", r"samples row \[1\] is not"),
    "a clean image": ("UPDATE samples SET image = zeroblob(72) WHERE sample = 2", r"samples row \[2\] is not"),
    "an image's shape": ("UPDATE samples SET shape = '[3,3,2]' WHERE sample = 0", r"samples row \[0\] is not"),
    "a unit": ("UPDATE units SET forwards = forwards + 1 WHERE ordinal = 1", f'units row \\["{KEY}"\\] is not'),
    "seconds": (f"UPDATE timings SET seconds = 0 WHERE unit = '{KEY}'", f'timings row \\["{KEY}"\\] is not'),
    "a result": (f"UPDATE results SET broken = 1 WHERE unit = '{KEY}' AND sample = 3", rf'results row \["{KEY}", 3\]'),
    "a type": (f"UPDATE results SET status = x'00' WHERE unit = '{KEY}' AND sample = 3", "results row"),
    "a distance": (f"UPDATE witnesses SET distance = 0 WHERE unit = '{KEY}' AND sample = 2", r"witnesses row \["),
    "a joint batch": (f"UPDATE batches SET samples = '[3,2,1,0]' WHERE unit = '{KEY}'", r"batches row \["),
    "a note": ("UPDATE notes SET value = '{}'", r'notes row \["health", "zero_gradient"\] is not'),
    "the summary": ("UPDATE summary SET value = replace(value, 'undecided', 'upheld')", r"summary row \[1\] is not"),
    "the identity": ("UPDATE identity SET value = replace(value, '0.1', '0.2')", "identity row"),
    "a deleted witness": (f"DELETE FROM witnesses WHERE unit = '{KEY}' AND sample = 2", "has a receipt but is gone"),
    "a deleted unit": (f"DELETE FROM units WHERE key = '{KEY}'", "units row .* is gone"),
    "a deleted result": (f"DELETE FROM results WHERE unit = '{KEY}' AND sample = 1", "results row .* is gone"),
    "an added result": (
        f"INSERT INTO results VALUES ('{KEY}', 9, 0, 0, 0, 0, 'done', 1, 1)",
        "added without a receipt",
    ),
    "an added note": ("INSERT INTO notes VALUES ('health', 'fine', 'true')", "added without a receipt"),
    "a moved row": (f"UPDATE results SET sample = 11 WHERE unit = '{KEY}' AND sample = 1", "results row"),
    "a strange receipt": ("INSERT INTO receipts VALUES ('more', '[1]', 'ab')", "unknown table more"),
    "a new column": ("ALTER TABLE results ADD COLUMN more", "definition of results"),
    "a new table": ("CREATE TABLE more (a)", "definition of more"),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM units; END", "definition of t"),
}


@pytest.mark.parametrize("what", EDITS)
def test_check_names_what_was_edited(path, what):
    statement, said = EDITS[what]
    edit(path, statement)
    with Ledger.read(path) as ledger, pytest.raises(EditedLedger, match=said) as error:
        ledger.check()
    assert "\n" not in str(error.value)


def test_a_forged_receipt_shows_in_the_seal(path):
    with Ledger.read(path) as ledger:
        seal = ledger.seal()
    where = f"WHERE part = 'witnesses' AND row LIKE '%{KEY}\", 2]'"
    edit(path, f"DELETE FROM witnesses WHERE unit = '{KEY}' AND sample = 2", f"DELETE FROM receipts {where}")
    with Ledger.read(path) as ledger, pytest.raises(EditedLedger, match=f"the summary carries the seal {seal}"):
        ledger.check()
    edit(path, "DELETE FROM summary", "DELETE FROM receipts WHERE part = 'summary'")
    with Ledger.read(path) as ledger:
        ledger.check()  # nothing in the file speaks against it any more, but the seal that was published does
        with pytest.raises(EditedLedger, match=f"the seal should be {seal}"):
            ledger.check(seal)


def test_a_flipped_byte_of_a_witness_is_caught(path):
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(unit(2)[2][1].x_adv.tobytes())
    whole[place + 5] ^= 1
    path.write_bytes(whole)
    with Ledger.read(path) as ledger, pytest.raises(EditedLedger, match=r"witnesses row .* is not the row"):
        ledger.check()


def test_any_flipped_byte_is_caught_or_changes_nothing(path, tmp_path):
    with Ledger.read(path) as ledger:
        before = told(ledger)
    whole, copy = path.read_bytes(), tmp_path / "copy.sqlite"
    draw = np.random.default_rng(0)
    caught = 0
    for place in [*range(16, 100, 3), *draw.integers(0, len(whole), 150).tolist()]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(draw.integers(8))
        for old in tmp_path.glob("copy.sqlite*"):
            old.unlink()
        copy.write_bytes(flipped)
        try:
            with Ledger.read(copy) as ledger:
                ledger.check()
                assert told(ledger) == before
        except LedgerError:
            caught += 1
    assert caught > 20
