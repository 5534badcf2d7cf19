"""`benchmarks/gpu_papers.sh`, with a program in place of verigrad that notes what it is asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_papers.sh"
# Writes the results of the id that it is asked for, unless that is a/slow, which is stopped by its time limit.
STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
while [ $# -gt 0 ]; do case $1 in --out) out=$2 ;; --scale) scale=$2 ;; a/*) id=$1 ;; esac; shift; done
mkdir -p "$out/$scale/results"
[ "$id" = "a/slow" ] || echo "{}" > "$out/$scale/results/$(echo "$id" | tr / -).json"
"""


@pytest.fixture
def call(tmp_path: Path):
    stub = tmp_path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls = tmp_path / "calls"

    def run(out: Path, *words: str, **more: str) -> tuple[int, list[str]]:
        calls.write_text("")
        set_ = {"VERIGRAD": str(stub), "CALLS": str(calls), **more}
        done = subprocess.run(
            ["bash", str(SCRIPT), str(tmp_path / "data"), str(out), *words],
            env={**os.environ, **set_},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, [line.split()[1] for line in calls.read_text().splitlines()]

    return run


def test_a_second_call_goes_on_with_what_is_missing(call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(out, "5", "a/one", "a/slow", SCALE="smoke") == (0, ["a/one", "a/slow"])
    assert call(out, "5", "a/one", "a/slow", SCALE="smoke") == (0, ["a/slow"])


def test_another_machine_goes_on_from_the_packed_state(call, tmp_path: Path) -> None:
    call(tmp_path / "one", "5", "a/one", SCALE="smoke")
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "state.tar.gz").rename(tmp_path / "two" / "state.tar.gz")
    assert call(tmp_path / "two", "5", "a/one", "a/two", SCALE="smoke") == (0, ["a/two"])


def test_nothing_is_begun_when_the_time_is_over(call, tmp_path: Path) -> None:
    assert call(tmp_path / "out", "0", "a/one", SCALE="smoke") == (0, [])
    assert (tmp_path / "out" / "state.tar.gz").exists()


def test_packed_data_are_unpacked_by_their_own_program(call, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "unpack_cifar10.py").write_text("import pathlib, sys; pathlib.Path(sys.argv[1]).mkdir(parents=True)\n")
    (data / "mnist").mkdir()
    code, ids = call(tmp_path / "out", "5", "a/one", PYTHON="python3")
    assert (code, ids) == (0, ["a/one"])
    assert (tmp_path / "out" / "data" / "cifar10").is_dir()
    assert (tmp_path / "out" / "data" / "mnist").is_symlink()
