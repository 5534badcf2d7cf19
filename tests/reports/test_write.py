"""Reports come from the ledger alone, whole or not at all, and without torch."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest
from scenes import SCENES, Scene, Try, build

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger
from verigrad.reports import write
from verigrad.reports.html import IndexRow
from verigrad.reports.write import as_json, write_index, write_reports, write_sarif


def test_reports_are_redrawn_from_the_ledger_alone(drawn, tmp_path):
    folder = build(tmp_path / "overstated", SCENES["overstated"])
    first = write_reports(folder)
    texts = [path.read_bytes() for path in first]
    for path in first:
        path.unlink()
    assert [path.read_bytes() for path in write_reports(folder)] == texts


def test_audit_json_is_the_ledgers_summary(drawn):
    folder = drawn("obfuscated")
    text = (folder / "audit.json").read_text(encoding="utf-8")
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        assert json.loads(text) == ledger.summary()
    assert text == as_json(json.loads(text))
    assert text.endswith("}\n")


def test_no_torch_is_imported(drawn, tmp_path):
    folder = build(tmp_path / "audit", SCENES["bare"])
    code = (
        "import sys\n"
        "from verigrad.reports import terminal\n"
        "from verigrad.reports.write import write_reports, write_sarif\n"
        f"write_reports({str(folder)!r}); write_sarif({str(folder)!r})\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'torchvision')])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.strip() == "[]"
    assert (folder / "audit.sarif").exists()


def test_without_a_ledger_nothing_is_written(tmp_path):
    for call in (write_reports, write_sarif):
        with pytest.raises(LedgerError):
            call(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_audit_writes_nothing(tmp_path):
    Ledger.create_or_resume(tmp_path / "ledger.sqlite", {"model": "m"}).close()
    with pytest.raises(LedgerError, match="cut off"):
        write_reports(tmp_path)
    assert not (tmp_path / "audit.json").exists()
    assert not (tmp_path / "report.html").exists()


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    write.write_text(target, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write.write_text(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_files_have_the_mode_of_any_new_file(tmp_path):
    write.write_text(tmp_path / "a", "text")
    (tmp_path / "b").write_text("text")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_a_name_that_is_no_text_does_not_stop_a_report(tmp_path):
    write.write_text(tmp_path / "a", "model \udcff")
    assert (tmp_path / "a").read_text() == "model ?"


def test_the_index_is_written_where_it_was_asked_for(drawn, tmp_path):
    summary = json.loads((drawn("upheld") / "audit.json").read_text(encoding="utf-8"))
    path = write_index([IndexRow(summary, "upheld/report.html")], tmp_path / "report.html", title="Demo")
    assert "upheld/report.html" in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_ten_thousand_samples_make_a_page_under_three_megabytes_in_five_seconds(tmp_path):
    tries = tuple(
        Try(stage=stage, name=name, share=share)
        for stage, name, share in (
            ("claim", "claim", 0.5),
            ("intervention", "frozen grid", 0.9),
            ("intervention", "noise-averaged gradient", 0.3),
            ("escalation", "round 1: 50 steps × 1, margin on the twin", 0.3),
        )
    )
    scene = Scene(verdict="overstated", n=10_000, shape=(3, 32, 32), eps=8 / 255, tries=tries)
    folder = build(tmp_path / "large", scene)
    began = time.perf_counter()
    written = write_reports(folder)
    took = time.perf_counter() - began
    size = written.page.stat().st_size
    assert size < 3e6, f"{size} bytes"
    assert took < 5, f"{took:.1f} s"
