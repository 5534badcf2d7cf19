"""`verigrad report` draws an audit again from its ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from shell import files


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledger of a finished audit, made without one."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "reports")
    import scenes

    scenes.build(tmp_path / "audit", scenes.Scene(verdict="upheld", reasons=("Nothing more was found.",)))
    return tmp_path / "audit"


def test_the_reports_are_drawn_again(verigrad, audited: Path) -> None:
    assert files(audited) == {"ledger.sqlite"}
    said = verigrad("report", audited)
    assert (said.code, said.err) == (0, "")
    assert "upheld" in said.out.lower()
    assert f"report: {audited / 'report.html'}" in said.out
    assert files(audited) == {"ledger.sqlite", "audit.json", "report.html"}
    assert json.loads((audited / "audit.json").read_text())["verdict"] == "upheld"
    before = (audited / "report.html").read_bytes()
    assert verigrad("report", audited).code == 0
    assert (audited / "report.html").read_bytes() == before


def test_it_needs_no_torch(audited: Path) -> None:
    code = (
        "import sys; from verigrad.cli.main import main; code = main(['report', sys.argv[1]]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(audited)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_finished_audit_there_is_nothing_to_draw(verigrad, tmp_path: Path) -> None:
    assert "ledger" in verigrad("report", tmp_path / "nowhere").error
    (tmp_path / "ledger.sqlite").write_text("not a ledger")
    assert "ledger" in verigrad("report", tmp_path).error
    assert files(tmp_path) == {"ledger.sqlite"}
