"""An audit that somebody edited, or whose weights or data changed, is found out; reports are drawn again."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from goods import contents, edit, read
from shell import files

from verigrad.ledger.store import Ledger
from verigrad.reports.write import write_reports


def flip(folder: Path) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    unit, sample, blob = db.execute("SELECT unit, sample, x_adv FROM witnesses LIMIT 1").fetchone()
    db.close()
    flipped = blob[:5] + bytes([blob[5] ^ 64]) + blob[6:]
    edit(folder, "UPDATE witnesses SET x_adv = ? WHERE unit = ? AND sample = ?", flipped, unit, sample)


def drop(folder: Path) -> None:
    edit(folder, "DELETE FROM witnesses WHERE rowid = (SELECT max(rowid) FROM witnesses)")


def better(folder: Path) -> None:
    path = folder / "audit.json"
    path.write_text(re.sub(r'"found": [0-9.]+', '"found": 0.9', path.read_text()))


def resealed(folder: Path, **changes: object) -> None:
    """By somebody who knows how receipts and seals are made, and draws the reports again."""
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        summary, identity = ledger.summary(), ledger.identity
    assert summary is not None
    with Ledger.create_or_resume(folder / "ledger.sqlite", identity) as ledger:
        ledger.put_summary(summary | changes | {"seal": ledger.seal()})
        ledger.check()
    write_reports(folder)


def rewritten(folder: Path) -> None:
    resealed(folder, verdict="upheld" if read(folder)["verdict"] != "upheld" else "obfuscated")


def shortened(folder: Path) -> None:
    """Without the last round of the escalation."""
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        key = ledger.units("escalation")[-1].key
    for part, column in (("units", "key"), ("timings", "unit"), ("results", "unit"), ("witnesses", "unit")):
        edit(folder, f"DELETE FROM {part} WHERE {column} = ?", key)
        edit(folder, "DELETE FROM receipts WHERE part = ? AND row LIKE ?", part, f"%{key.rpartition('/')[2]}%")
    resealed(folder, attacks=read(folder)["attacks"][:-1])


def praised(folder: Path) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    (text,) = db.execute("SELECT value FROM summary").fetchone()
    db.close()
    edit(folder, "UPDATE summary SET value = ?", text.replace('"found":', '"found":1'))


@pytest.mark.parametrize("tamper", [flip, drop, better, praised, rewritten, shortened])
def test_an_edited_audit_is_found(verigrad, shop: Path, audited: Path, tamper: Callable[[Path], None]) -> None:
    said = verigrad("verify", audited)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("all ")
    assert files(audited) == {"ledger.sqlite", "audit.json", "report.html"}
    tamper(audited)
    said = verigrad("verify", audited)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("not proven: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda: shutil.copy("other.safetensors", "own.safetensors"), "weights of 'nets:Means'"),
        (lambda: Path("own.safetensors").write_bytes(b"short"), "own.safetensors is no whole safetensors file"),
        (lambda: Path("own.safetensors").unlink(), "There is no weights file own.safetensors"),
        (lambda: shutil.copy("parity.npz", "own.npz"), "images and labels of 'own.npz'"),
        (lambda: Path("own.npz").unlink(), "There is no file 'own.npz'"),
    ],
)
def test_changed_weights_or_data_are_found(verigrad, shop: Path, tmp_path: Path, change: Callable, part: str) -> None:
    shutil.copy("means.safetensors", "own.safetensors")
    shutil.copy("digits.npz", "own.npz")
    own = ("--weights", "own.safetensors", "--data", "own.npz")
    out = tmp_path / "audit"
    assert verigrad("audit", "nets:Means", *own, "--threat", "linf:0.1", "--n", 4, "--out", out).code == 0
    assert verigrad("verify", out).code == 0
    change()
    assert part in verigrad("verify", out).error


def test_the_reports_are_drawn_again_without_torch(audited: Path) -> None:
    before = contents(audited)
    for name in ("audit.json", "report.html"):
        (audited / name).unlink()
    code = (
        "import sys; from verigrad.cli.main import main; code = main(['report', sys.argv[1]]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(audited)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = contents(audited)
    assert {name: after[name] for name in ("audit.json", "report.html")} == {
        name: before[name] for name in ("audit.json", "report.html")
    }
