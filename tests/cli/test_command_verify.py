"""`verigrad verify`: witnesses stand, and every kind of edit is found."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shell import MODEL, Shell

import verigrad as face
from verigrad.auditing import verifying
from verigrad.cli import progress as progress_room
from verigrad.ledger import receipt
from verigrad.ledger.errors import EditedLedger
from verigrad.ledger.store import Ledger
from verigrad.models.loading import load_model

MATES = """
class Mates(Brightness):
    batch_coupled = True

    def forward(self, x):
        logits = super().forward(x)
        return logits - logits.mean(0)
"""
ATTACK = ("--data", "own.npz", "--threat", "linf:0.1", "--attacks", "fgsm")


@pytest.fixture
def run(verigrad: Shell, workplace: Path, tmp_path: Path) -> Path:
    """A finished run, fresh for each test."""
    kept = workplace / "run"
    if not kept.exists():
        assert verigrad("attack", "brightness:Brightness", *ATTACK, "--out", kept).code == 0
    return Path(shutil.copytree(kept, tmp_path / "run"))


def edit(run: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(run / "ledger.sqlite")
    with db:
        db.execute(statement, values)
    db.close()


def receipts_anew(run: Path, part: str) -> None:
    db = sqlite3.connect(run / "ledger.sqlite")
    with db:
        db.execute("DELETE FROM receipts WHERE part = ?", (part,))
        rows = db.execute(f"SELECT * FROM {part}").fetchall()
        receipts = [(part, receipt.row_name(part, row), receipt.digest(part, row)) for row in rows]
        db.executemany("INSERT INTO receipts VALUES (?, ?, ?)", receipts)
    db.close()


def sealed(run: Path) -> str:
    with Ledger.read(run / "ledger.sqlite") as ledger:
        return ledger.seal()


def test_the_witnesses_of_a_run_stand(verigrad, run: Path) -> None:
    with Ledger.read(run / "ledger.sqlite") as ledger:
        count = len(ledger.witnesses())
    assert count > 5
    said = verigrad("verify", run)
    assert (said.code, said.err) == (0, "")
    seal = sealed(run)
    assert said.out == (
        f"all {count} witnesses stand, and the ledger agrees with itself (seal {seal}). "
        "Compare the seal with the published one.\n"
    )
    assert face.verify(run)[::2] == (count, seal)


def test_a_ledger_forged_with_its_receipts_has_another_seal(verigrad, run: Path) -> None:
    """Units and witnesses are dropped by somebody who knows how receipts are made."""
    seal = sealed(run)
    said = verigrad("verify", run, "--seal", f" {seal.upper()} ")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("the ledger agrees with itself, and its seal is the one given.\n")
    for part, column in (("units", "key"), ("timings", "unit"), ("results", "unit"), ("witnesses", "unit")):
        edit(run, f"DELETE FROM {part} WHERE {column} = (SELECT max({column}) FROM {part})")
        receipts_anew(run, part)
    said = verigrad("verify", run)
    assert said.code == 0
    assert seal not in said.out
    said = verigrad("verify", run, "--seal", seal)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("not proven: ")
    assert f"the seal should be {seal}" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("seal", ["", "abcd", "g" * 64])
def test_what_is_no_seal_is_refused(verigrad, run: Path, seal: str) -> None:
    assert "64 hexadecimal digits" in verigrad("verify", run, "--seal", seal).error


def test_a_clean_prediction_that_the_model_does_not_give_is_found(verigrad, run: Path) -> None:
    """A sample that the model errs on without an attack, told as one that no attack breaks."""
    edit(run, "UPDATE samples SET prediction = label WHERE sample = 1")
    receipts_anew(run, "samples")
    said = verigrad("verify", run)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("not proven: The clean sample 1 has label ")
    assert said.err.count("\n") == 1


def test_a_clean_sample_that_is_gone_is_found(verigrad, run: Path) -> None:
    with Ledger.read(run / "ledger.sqlite") as ledger:
        broken = {witness.sample for witness in ledger.witnesses()}
        spared = next(row.sample for row in ledger.samples() if row.sample not in broken)
    edit(run, f"DELETE FROM samples WHERE sample = {spared}")
    receipts_anew(run, "samples")
    assert "has 59 clean samples, the data 60" in verigrad("verify", run).err


def test_clean_predictions_are_repeated_in_the_batches_in_which_they_were_made(
    verigrad, workplace: Path, tmp_path: Path
) -> None:
    (workplace / "mates.py").write_text(MODEL + MATES)
    out = tmp_path / "run"
    assert verigrad("attack", "mates:Mates", *ATTACK, "--batch", 20, "--out", out).code == 0
    alone = load_model("mates:Mates")
    x = torch.from_numpy(np.load("own.npz")["x"])
    with Ledger.read(out / "ledger.sqlite") as ledger:
        together = [row.prediction for row in ledger.samples()]
    assert together != [int(alone(image[None]).argmax()) for image in x], "mates matter"
    assert verigrad("verify", out).code == 0
    edit(out, "UPDATE samples SET prediction = 1 - prediction WHERE sample = 30")
    receipts_anew(out, "samples")
    assert "The clean sample 30" in verigrad("verify", out).err


def test_what_is_not_found_from_another_folder_is_told_with_the_fix(
    verigrad, run: Path, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "brightness", raising=False)
    told = verigrad("verify", run).error
    assert "There is no file 'own.npz'" in told
    assert "in the folder in which the ledger was made" in told
    shutil.copy(workplace / "own.npz", tmp_path)
    told = verigrad("verify", run).error
    assert "no module 'brightness'" in told
    assert "PYTHONPATH" in told
    monkeypatch.syspath_prepend(workplace)
    assert verigrad("verify", run).code == 0


def test_without_a_terminal_quick_units_are_not_told(verigrad, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long model and data take to load."""

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.6)
        return load_model(*arguments, **named)

    monkeypatch.setattr(verifying, "load_model", slow)
    monkeypatch.setattr(progress_room, "PATIENCE", 0.5)
    said = verigrad("verify", run)
    assert (said.code, said.err) == (0, "")


def test_a_flipped_byte_in_a_witness_is_found(verigrad, run: Path) -> None:
    db = sqlite3.connect(run / "ledger.sqlite")
    unit, sample, blob = db.execute("SELECT unit, sample, x_adv FROM witnesses LIMIT 1").fetchone()
    db.close()
    flipped = bytes([blob[0] ^ 1]) + blob[1:]
    edit(run, "UPDATE witnesses SET x_adv = ? WHERE unit = ? AND sample = ?", flipped, unit, sample)
    said = verigrad("verify", run)
    assert said.code == 1
    assert said.err.startswith("not proven: ")
    assert "witnesses" in said.err
    with pytest.raises(EditedLedger):
        face.verify(run)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM witnesses WHERE rowid = (SELECT min(rowid) FROM witnesses)",
        "UPDATE results SET broken = 0",
        "UPDATE identity SET value = replace(value, 'linf:0.1', 'linf:0.9')",
        "DELETE FROM units",
        "UPDATE samples SET label = 1 - label",
    ],
)
def test_an_edited_ledger_is_found(verigrad, run: Path, statement: str) -> None:
    edit(run, statement)
    said = verigrad("verify", run)
    assert said.code == 1
    assert said.err.startswith("not proven: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("text", ["{", "null", '{"seal": "0"}'])
def test_an_audit_json_that_is_not_the_ledgers_is_found(verigrad, run: Path, text: str) -> None:
    (run / "audit.json").write_text(text)
    said = verigrad("verify", run)
    assert said.code == (0 if text == "null" else 1), "this run has no summary, and null says just that"
    assert said.err.count("\n") == said.code


def test_a_model_that_decides_otherwise_is_found(verigrad, workplace: Path, tmp_path: Path) -> None:
    """Code is in no hash: only the forward passes can tell."""
    (workplace / "turned.py").write_text(MODEL)
    assert verigrad("attack", "turned:Brightness", *ATTACK, "--out", tmp_path / "run").code == 0
    assert verigrad("verify", tmp_path / "run").code == 0
    import turned

    class Flipped(turned.Brightness):
        def forward(self, x):
            return super().forward(x).flip(1)

    turned.Brightness = Flipped
    said = verigrad("verify", tmp_path / "run")
    assert said.code == 1
    first, *_, last = said.err.splitlines()
    assert first.startswith("not proven: the witness of sample ")
    assert "is classified rightly" in first
    assert "witnesses do not stand" in last


def test_other_weights_are_refused(verigrad, workplace: Path, tmp_path: Path) -> None:
    assert verigrad("attack", "brightness:random_weights", *ATTACK, "--out", tmp_path / "run").code == 0
    assert (
        "weights of 'brightness:random_weights' are not those of the audit"
        in verigrad("verify", tmp_path / "run").error
    )


def test_what_is_no_run_is_refused(verigrad, tmp_path: Path) -> None:
    assert "ledger" in verigrad("verify", tmp_path).error
    (tmp_path / "ledger.sqlite").write_text("not a ledger")
    assert "ledger" in verigrad("verify", tmp_path).error
    with Ledger.create_or_resume(tmp_path / "python" / "ledger.sqlite", {"model": "", "threat": "linf:0.1"}):
        pass
    assert "made from Python objects" in verigrad("verify", tmp_path / "python").error
