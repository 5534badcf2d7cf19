"""What lanes do in the tests: each writes its process's number and one of a process that it started, and waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from verigrad.cli.lanes import Note
from verigrad.core.errors import BadInput


def waits(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, int]:
    del n, seed
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    (out / f"{lane}.draft").write_text(f"{os.getpid()} {child.pid}")
    os.replace(out / f"{lane}.draft", out / f"{lane}.pids")
    while True:
        told.put(Note(lane, "waiting", None))
        time.sleep(0.05)


def one_fails(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, int]:
    if lane == "SONet":
        waits(lane, out, n, seed, told)
    _until(out / "SONet.pids")
    raise BadInput("The disk is full.")


def one_errs(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, int]:
    if lane == "SONet":
        waits(lane, out, n, seed, told)
    _until(out / "SONet.pids")
    raise ZeroDivisionError


def one_is_killed(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, int]:
    if lane == "SONet":
        waits(lane, out, n, seed, told)
    _until(out / "SONet.pids")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def both_end(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, int]:
    del out
    told.put(Note(lane, "at work", 0.5))
    return {lane: n + seed}


def _until(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)
