"""`verigrad report` draws an audit or a curve again from its ledgers, and says what else a folder holds."""

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


@pytest.fixture
def curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledgers of a finished curve, made without attacks."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "reports")
    from curves import Run, build

    levels = {"0.1": [Run("pgd", {0: 0.1, 1: None})], "1/5": [Run("pgd", {1: 0.2})]}
    return build(tmp_path / "curve", levels)


def test_a_curve_is_drawn_again(verigrad, curve: Path) -> None:
    before = files(curve)
    said = verigrad("report", curve)
    assert (said.code, said.err) == (0, "")
    rows = {line.split("  ")[0]: line.split() for line in said.out.splitlines()}
    assert rows["attack"] == ["attack", "eps", "0", "0.1", "1/5"]
    assert rows["pgd"] == ["pgd", "100", "%", "90", "%", "80", "%"]
    assert f"curve: {curve / 'curve.html'}" in said.out
    assert files(curve) == before | {"curve.json", "curve.html"}


def test_an_attack_is_told_from_an_audit(verigrad, tmp_path: Path, curve: Path) -> None:
    folder = curve / "eps-0.1"
    said = verigrad("report", folder)
    assert (said.code, said.err) == (0, "")
    assert f"{folder} holds an attack and no audit: tests/nets/made-up on digits, linf:0.1." in said.out
    assert "10 samples, 10 of them right without an attack." in said.out
    assert "pgd:full: tried 2, broke 1." in said.out
    assert files(folder) == {"ledger.sqlite"}


@pytest.mark.parametrize("made", ["audited", "curve"])
def test_it_needs_no_torch(request: pytest.FixtureRequest, made: str) -> None:
    folder = request.getfixturevalue(made)
    code = (
        "import sys; from verigrad.cli.main import main; code = main(['report', sys.argv[1]]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_finished_audit_there_is_nothing_to_draw(verigrad, tmp_path: Path) -> None:
    assert "ledger" in verigrad("report", tmp_path / "nowhere").error
    (tmp_path / "ledger.sqlite").write_text("not a ledger")
    assert "ledger" in verigrad("report", tmp_path).error
    assert files(tmp_path) == {"ledger.sqlite"}
