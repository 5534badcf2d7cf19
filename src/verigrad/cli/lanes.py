"""Lanes: what runs side by side, one process each, and ends together."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from queue import Empty
from threading import Thread
from typing import Any, NamedTuple

from verigrad.core.errors import VerigradError
from verigrad.ledger.errors import LedgerError

# How long a lane that is told to end may take before it is killed, in seconds.
GRACE = 3.0


class Note(NamedTuple):
    """What a lane does now, and how much of that is done, from 0 to 1 or None."""

    lane: str
    text: str
    share: float | None


class End(NamedTuple):
    """The end of a lane: what it came to; or, if it failed, why, and whether a user can mend that."""

    lane: str
    found: Any
    fault: str | None = None
    mendable: bool = False


class LaneFailed(VerigradError):
    """A lane failed in a way that a user can mend."""


def begin(work: Callable[..., Any], arguments: tuple[Any, ...], told: Any) -> None:
    """The main function of a lane's process: does the work and puts an `End` into the queue `told`.

    The process leads a group of its own, so that it can be ended together with the workers that it starts; it ends
    itself with them should its parent be gone.

    Args:
        work: called with `arguments`, of which the first is the lane's name.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        Thread(target=_end_with_parent, daemon=True).start()
    lane = str(arguments[0])
    try:
        told.put(End(lane, work(*arguments)))
    except (VerigradError, LedgerError, OSError) as fault:
        told.put(End(lane, None, str(fault), mendable=True))
    except Exception:
        told.put(End(lane, None, traceback.format_exc()))


def ends(
    running: Mapping[str, BaseProcess], told: Any, show: Callable[[str, str, float | None], None]
) -> Iterator[tuple[str, Any]]:
    """What each lane came to, by name, as they end; their notes are shown meanwhile.

    Raises:
        LaneFailed: a lane failed, or its process is gone. RuntimeError: it failed by a fault of the program.
    """
    left = set(running)
    while left:
        gone = [lane for lane in left if running[lane].exitcode is not None]
        for said in _said(told):
            if isinstance(said, Note):
                show(*said)
                continue
            _raise_fault(said)
            left.discard(said.lane)
            yield said.lane, said.found
        # What a process said before it went has been read by now.
        for lane in left.intersection(gone):
            raise LaneFailed(
                f"The lane {lane!r} of the demo is gone (exit code {running[lane].exitcode}), so the others were "
                "ended. The same command goes on where they stopped."
            )


def end_all(processes: Iterable[BaseProcess]) -> None:
    """Ends the processes that still run or were killed, each with all that it has started, and waits for them."""
    alive = [process for process in processes if process.pid is not None and process.exitcode != 0]
    for process in alive:
        _signal(process, signal.SIGTERM)
    for process in alive:
        process.join(GRACE)
        if hasattr(signal, "SIGKILL"):
            _signal(process, signal.SIGKILL)
        process.join()


def _said(told: Any) -> Iterator[Note | End]:
    """All that waits in the queue; it comes to an end although new notes may come in ever so fast."""
    until = time.monotonic() + 0.5
    with suppress(Empty):
        while time.monotonic() < until:
            yield told.get(timeout=0.2)


def _raise_fault(end: End) -> None:
    if end.fault is None:
        return
    if end.mendable:
        raise LaneFailed(f"The lane {end.lane!r} of the demo failed, so the others were ended: {end.fault}")
    raise RuntimeError(f"The lane {end.lane!r} of the demo failed, so the others were ended.\n{end.fault}")


def _signal(process: BaseProcess, number: int) -> None:
    """To the process's group; to the process alone as long as it leads none."""
    if hasattr(os, "killpg") and process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            return
    process.terminate()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.killpg(os.getpid(), signal.SIGKILL)
