"""An audit that is killed at any moment goes on with the same command, and ends with the same numbers."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from goods import RUN, SMALL, WEIGHTS, edit, read, timeless

from verigrad.auditing.audit import audit
from verigrad.cli.main import main
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.models.loading import load_model


def in_process(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    main(arguments)


KILLED = [
    "audit",
    "nets:masked",
    *WEIGHTS,
    "--data",
    "digits.npz",
    "--threat",
    "linf:0.1",
    "--n",
    "30",
    "--batch",
    "10",
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_audit_goes_on(shop: Path, tmp_path: Path) -> None:
    """One run is a process of its own; those that are killed are forked with torch in memory, to be quick."""
    whole = subprocess.Popen(
        [*RUN, *KILLED, "--out", str(tmp_path / "whole")], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "verigrad.auditing.audit", "verigrad.reports.html"])

    def begun(folder: Path) -> Any:
        process = context.Process(target=in_process, args=([*KILLED, "--out", str(folder)],))
        process.start()
        return process

    begun(tmp_path / "warm").join()
    started = time.monotonic()
    begun(tmp_path / "0").join()
    span = time.monotonic() - started
    draw, kills, partial = random.Random(time.time_ns()), 0, 0
    for place in range(1, 4):
        folder = tmp_path / str(place)
        for _ in range(2):
            process = begun(folder)
            while process.is_alive() and not (folder / "ledger.sqlite").exists():
                time.sleep(0.002)
            process.join(draw.uniform(0, 0.4) * span)
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        partial += (folder / "ledger.sqlite").exists() and not (folder / "audit.json").exists()
        last = begun(folder)
        last.join()
        assert last.exitcode == 0
    assert whole.wait() == 0
    expected = timeless(read(tmp_path / "whole"))
    assert expected["verdict"] == "obfuscated"
    for place in range(4):
        assert timeless(read(tmp_path / str(place))) == expected
    assert kills >= 3, (kills, span)
    assert partial >= 1, "no kill left an audit unfinished"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("model", ["nets:masked", "nets:Random"])
def test_a_killed_process_goes_on(shop: Path, tmp_path: Path, model: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*RUN, "audit", model, *KILLED[2:], "--out"]
    started = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], env=environment, check=True, capture_output=True)
    span = time.monotonic() - started
    draw = random.Random(time.time_ns())
    for place in range(10):
        folder = tmp_path / str(place)
        for _ in range(2):
            process = subprocess.Popen(
                [*command, folder], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(draw.uniform(0.3 * span, span))
            process.kill()
            process.wait()
        subprocess.run([*command, folder], env=environment, check=True, capture_output=True)
        assert timeless(read(folder)) == timeless(read(tmp_path / "whole"))


def test_a_random_model_that_was_cut_off_in_its_health_goes_on(verigrad, shop: Path, tmp_path: Path) -> None:
    """Its draws are named, not taken from where torch's generator happens to stand; and that one is left alone."""
    common = ("audit", "nets:Random", *WEIGHTS, *SMALL, "--n", 12)
    assert verigrad(*common, "--out", tmp_path / "whole").code == 0
    model, before = load_model("nets:Random", "means.safetensors"), torch.random.get_rng_state()
    audit(model, load_data("digits.npz", n=4), Linf(eps=0.1))
    assert torch.equal(before, torch.random.get_rng_state())
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for part in ("units", "timings", "results", "witnesses", "summary", "samples"):
        edit(tmp_path / "cut", f"DELETE FROM {part}")
        edit(tmp_path / "cut", "DELETE FROM receipts WHERE part = ?", part)
    edit(tmp_path / "cut", "DELETE FROM notes WHERE name > 'f'")
    edit(tmp_path / "cut", "DELETE FROM receipts WHERE part = 'notes' AND row > '[\"health\", \"f'")
    assert verigrad(*common, "--out", tmp_path / "cut").code == 0
    whole, cut = timeless(read(tmp_path / "whole")), timeless(read(tmp_path / "cut"))
    assert whole == cut
