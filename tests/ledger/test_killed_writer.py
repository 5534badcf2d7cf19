"""A writer killed at any moment leaves a whole ledger, and its successor ends where it would have ended."""

import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from recorded import told

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger

WRITER = str(Path(__file__).with_name("recorded.py"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_kill_and_resume(tmp_path):
    started = time.monotonic()
    subprocess.run([sys.executable, WRITER, str(tmp_path / "whole.sqlite")], check=True)
    needed = time.monotonic() - started
    path = tmp_path / "killed.sqlite"
    draw, partial, kills = random.Random(0), set(), 0
    for _ in range(12):
        # The file itself tells when the writer has begun; before that there is little to disturb.
        before, deadline = path.exists(), time.monotonic() + 30
        writer = subprocess.Popen([sys.executable, WRITER, str(path)])
        while not before and not path.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.15 * needed) + (0.6 * needed if before and draw.random() < 0.5 else 0))
        writer.send_signal(signal.SIGKILL)
        kills += writer.wait() == -signal.SIGKILL
        if path.exists() and path.stat().st_size:
            with suppress(LedgerError) if not before else nullcontext(), Ledger.read(path) as ledger:
                ledger.check()
                partial.add(len(ledger.units()))
    assert kills >= 6
    subprocess.run([sys.executable, WRITER, str(path)], check=True)
    with Ledger.read(path) as ledger, Ledger.read(tmp_path / "whole.sqlite") as whole:
        ledger.check(whole.seal())
        assert told(ledger) == told(whole)
    assert any(0 < units < 60 for units in partial), "no kill fell between the first unit and the last"
