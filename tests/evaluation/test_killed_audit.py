"""An audit killed at any moment and begun again gives the numbers of an undisturbed one."""

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import toy_audit

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.store import Ledger

PROGRAM = str(Path(__file__).with_name("toy_audit.py"))


def everything(ledger: Ledger) -> dict[str, object]:
    """All but the seconds."""
    keys = [unit.key for unit in ledger.units()]
    batches = [batch for key in keys if (batch := ledger.batch(key))]
    return {
        "samples": ledger.samples(),
        "units": [unit._replace(seconds=0.0) for unit in ledger.units()],
        "results": [ledger.results(key) for key in keys],
        "witnesses": [witness._replace(x_adv=witness.x_adv.tobytes()) for witness in ledger.witnesses()],
        "batches": [batch._replace(x_adv=batch.x_adv.tobytes()) for batch in batches],
        "notes": ledger.notes("health"),
        "summary": ledger.summary(),
    }


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.sqlite*") if path.exists()}


def progress(folder: Path) -> set[tuple[str, int]]:
    """How many units each ledger holds; one that was killed at its birth holds none."""
    units = set()
    for path in folder.glob("*.sqlite"):
        with suppress(LedgerError), Ledger.read(path) as ledger:
            ledger.check()
            units.add((path.name, len(ledger.units())))
    return units


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_kill_and_resume(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # One process is started from nothing, with a hash seed of its own; the others are forked with torch in memory.
    undisturbed = subprocess.Popen([sys.executable, PROGRAM, str(whole)])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "verigrad.evaluation.run"])
    draw, kills, partial = random.Random(0), 0, set()
    for _ in range(7):
        program = context.Process(target=toy_audit.main, args=(str(killed),))
        program.start()
        before = sizes(killed)
        while program.is_alive() and sizes(killed) == before:
            time.sleep(0.001)  # until it begins to write
        time.sleep(draw.uniform(0, 0.3))
        program.kill()
        program.join()
        kills += program.exitcode == -signal.SIGKILL
        partial |= progress(killed)
    assert kills >= 3
    last = context.Process(target=toy_audit.main, args=(str(killed),))
    last.start()
    last.join()
    assert last.exitcode == 0
    assert undisturbed.wait() == 0
    for kind in ("plain", "Coupled", "Random"):
        with Ledger.read(whole / f"{kind}.sqlite") as one, Ledger.read(killed / f"{kind}.sqlite") as other:
            assert everything(one) == everything(other)
            assert one.witnesses(), "the control: there is something to compare"
            assert any(unit.stage == "escalation" for unit in one.units())
            other.check(one.seal())
            partial.discard((f"{kind}.sqlite", len(one.units())))
    assert partial, "no kill left a ledger unfinished"
