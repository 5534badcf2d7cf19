"""The lanes of the demo end together: where one fails, where one is killed, and at an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lane_work
import pytest

from verigrad.cli import demo
from verigrad.cli.lanes import LaneFailed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX's")

INTERRUPTED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import lane_work
from verigrad.cli import demo, main
demo._lane = lane_work.waits
if __name__ == "__main__":
    sys.exit(main.main(["demo", "--out", {out!r}]))
"""


def pids(folder: Path) -> list[int]:
    return [int(pid) for path in folder.glob("*.pids") for pid in path.read_text().split()]


def runs(pid: int) -> bool:
    """A process that is dead, but that nobody asked about yet, runs no more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(said.strip()) and not said.startswith("Z")


def gone(folder: Path, count: int) -> bool:
    """Whether all that was written down has ended, at the latest in a few seconds."""
    assert len(pids(folder)) == count
    for _ in range(100):
        if not any(map(runs, pids(folder))):
            return True
        time.sleep(0.05)
    return False


def test_lanes_that_end_give_what_they_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_lane", lane_work.both_end)
    assert demo._both_lanes(tmp_path, 200, 3) == {"SONet": 203, "conv nets": 203}


@pytest.mark.parametrize(
    ("work", "error", "part"),
    [
        (lane_work.one_fails, LaneFailed, "'conv nets' of the demo failed, so the others were ended: The disk is full"),
        (lane_work.one_errs, RuntimeError, "ZeroDivisionError"),
        (lane_work.one_is_killed, LaneFailed, "'conv nets' of the demo is gone .exit code -9."),
    ],
)
def test_a_lane_that_fails_ends_the_other_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable, error: type[Exception], part: str
) -> None:
    monkeypatch.setattr(demo, "_lane", work)
    with pytest.raises(error, match=part):
        demo._both_lanes(tmp_path, 200, 0)
    assert gone(tmp_path, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_both_lanes_and_what_they_started(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED.format(here=str(Path(__file__).parent), out=str(tmp_path)))
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if len(pids(tmp_path)) == 4 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert gone(tmp_path, 4)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "error: interrupted. The same command goes on where it stopped."
        assert "Traceback" not in err
