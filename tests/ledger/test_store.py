"""What goes into a ledger comes out of it, once, and by the whole unit."""

import subprocess
import sys

import numpy as np
import pytest
from recorded import IDENTITY, fill, images, told, unit

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.schema import SampleRow
from verigrad.ledger.store import Ledger


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create_or_resume(tmp_path / "out" / "ledger.sqlite", IDENTITY) as opened:
        yield opened


def test_rows_come_back_as_they_went_in(ledger):
    row, results, witnesses, batch = unit(1, joint=True)
    ledger.record(*unit(3))
    ledger.record(row, results, witnesses, batch)
    assert ledger.units() == (row, unit(3)[0])
    assert ledger.units("claim") == ledger.units()
    assert ledger.units("escalation") == ()
    assert list(ledger.results(row.key)) == results
    found = ledger.witnesses(unit=row.key)
    assert [w[:5] for w in found] == [w[:5] for w in witnesses]
    assert all(a.x_adv.tobytes() == b.x_adv.tobytes() for a, b in zip(found, witnesses, strict=True))
    assert found[0].x_adv.dtype == np.float32
    assert found[0].x_adv.flags.writeable
    joint = ledger.batch(row.key)
    assert joint is not None
    assert joint.samples == batch.samples
    assert np.array_equal(joint.x_adv, batch.x_adv)
    assert ledger.batch(unit(3)[0].key) is None
    assert [w.unit for w in ledger.witnesses(sample=2)] == [row.key, unit(3)[0].key]
    assert ledger.has(row.key)
    assert not ledger.has("claim/pgd/9-0")


def test_samples_come_back_and_must_agree(ledger):
    rows, pictures = [SampleRow(7, 1, 1, 0.5), SampleRow(3, 2, -1, None)], images(2, 0)
    ledger.put_samples(rows, list(pictures))
    ledger.put_samples(rows, list(pictures))
    assert ledger.samples() == (rows[1], rows[0])
    assert np.array_equal(ledger.image(7), pictures[0])
    with pytest.raises(LedgerError, match=r"Sample 7 .* label 1 and prediction 1\. Got 1 and 2"):
        ledger.put_samples([SampleRow(7, 1, 2, 0.5)], [pictures[0]])
    with pytest.raises(LedgerError, match="another image"):
        ledger.put_samples([SampleRow(7, 1, 1, 0.5)], [pictures[1]])
    with pytest.raises(LedgerError, match="has no sample 8"):
        ledger.image(8)


def test_a_note_never_changes(ledger):
    for name in ("b", "a", "b"):
        ledger.put_note("health", name, {"value": 1.5, "of": [1, 2]})
    assert list(ledger.notes("health")) == ["b", "a"]
    assert ledger.notes("health")["a"] == {"value": 1.5, "of": [1, 2]}
    assert ledger.notes("other") == {}
    with pytest.raises(LedgerError, match="Notes never change"):
        ledger.put_note("health", "a", {"value": 2})
    with pytest.raises(LedgerError, match="note health/c must hold only"):
        ledger.put_note("health", "c", float("nan"))


def test_a_new_fact_takes_the_summary_away(ledger):
    fill(ledger)
    assert ledger.summary()["verdict"] == "undecided"
    fill(ledger)
    ledger.put_samples([SampleRow(0, 1, 1, 0.0)], [ledger.image(0)])
    assert ledger.summary() is not None
    ledger.record(*unit(9))
    assert ledger.summary() is None
    ledger.check()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda u, r, w, b: (u._replace(stage="later"), r, w, b), "stage of a unit must be one of"),
        (lambda u, r, w, b: (u, r[1:], w, b), "its own results only, 4 of them"),
        (lambda u, r, w, b: (u, r, w[1:], b), "one witness for each broken sample"),
        (lambda u, r, w, b: (u, r, w, b._replace(samples=(0, 1))), "one image a sample"),
        (lambda u, r, w, b: (u, r, [w[0]._replace(x_adv=w[0].x_adv.astype(np.float64)), w[1]], b), "must be float32"),
        (lambda u, r, w, b: (u, [r[0]._replace(distance=float("nan")), *r[1:]], w, b), "must be finite, or None"),
        (lambda u, r, w, b: (u, [r[1], *r[1:]], [w[1]], b), "already holds this"),
    ],
)
def test_a_unit_that_contradicts_itself_leaves_nothing_behind(ledger, change, said):
    before = told(ledger)
    with pytest.raises(LedgerError, match=said):
        ledger.record(*change(*unit(1, joint=True)))
    assert told(ledger) == before
    ledger.record(*unit(1, joint=True))
    with pytest.raises(LedgerError, match="already holds this"):
        ledger.record(*unit(1, joint=True))
    ledger.check()


def test_the_seal_knows_neither_order_nor_time(tmp_path):
    seals = set()
    for place, order in enumerate([(0, 1, 2), (2, 0, 1)]):
        with Ledger.create_or_resume(tmp_path / f"{place}.sqlite", IDENTITY) as ledger:
            fill(ledger, order=order)
            seals.add(ledger.seal())
            row = unit(7, seconds=float(place))
            ledger.record(*row)
            seals.add(ledger.seal())
    assert len(seals) == 2


def test_ledger_needs_no_torch():
    code = "import sys, verigrad.ledger.store, verigrad.ledger.statistics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
