"""The demo's five verdicts: from scratch (slow), and from its three trained nets in tests/nets.

The nets were written by an earlier `verigrad demo` with seed 0; the slow test trains new ones and expects the same
verdicts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from shell import Shell

NETS = Path(__file__).parents[1] / "nets"
MASKED = {"sonet": "grid", "scaled": "saturation", "quantised": "no_derivative"}


def summaries(out: Path) -> dict[str, dict]:
    return {folder.name: json.loads((folder / "audit.json").read_text()) for folder in (out / "audits").iterdir()}


def check(out: Path, said: str) -> None:
    found = summaries(out)
    for name, cause in MASKED.items():
        assert (found[name]["verdict"], found[name]["main_cause"]) == ("obfuscated", cause), found[name]["reasons"]
    assert found["hardened"]["verdict"] in ("upheld", "overstated")
    assert found["conv"]["verdict"] in ("upheld", "overstated")
    sonet = found["sonet"]
    assert sonet["batch_coupled"]
    assert sonet["claimed"] - sonet["found"] > 0.3
    assert sonet["causes"][0]["label"] == "gradient through the batch-coupled step size"
    assert all(summary["n"] >= 200 for summary in found.values())
    assert str(out / "report.html") in said
    for summary in found.values():
        assert summary["title"] in said
        assert summary["verdict"] in said


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


@pytest.mark.usefixtures("wide")
def test_the_verdicts_on_the_trained_nets(verigrad: Shell, tmp_path: Path) -> None:
    shutil.copytree(NETS, tmp_path / "nets")
    said = verigrad("demo", "--out", tmp_path)
    assert said.code == 0, said.err
    check(tmp_path, said.out)
    assert verigrad("verify", tmp_path / "audits" / "sonet").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("wide")
def test_the_demo_from_scratch(verigrad: Shell, tmp_path: Path) -> None:
    said = verigrad("demo", "--out", tmp_path)
    assert said.code == 0, said.err
    check(tmp_path, said.out)
