"""When a run is saved between epochs, and when it stops: by the clock of process 0, which all processes follow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from verigrad.core.errors import BadInput
from verigrad.training.distributed import Processes

# Several processes ask each other about this often, in seconds; a single one looks after every step.
ASKED = 1.0


class Due(NamedTuple):
    """What is to be done between two steps."""

    save: bool
    stop: bool


class Clock:
    """Asked between steps.

    Args:
        save_every: seconds between two saves; None for never.
        time_limit: seconds from now after which the run stops; None for never.
        processes: who takes part.
        now: a clock in seconds.

    Raises:
        BadInput: a time that is not positive.
    """

    def __init__(
        self,
        *,
        save_every: float | None,
        time_limit: float | None,
        processes: Processes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("save_every", save_every), ("time_limit", time_limit)):
            if value is not None and not value > 0:
                raise BadInput(f"{name!r} must be a positive number of seconds. Got {value:g}.")
        self._save_every = math.inf if save_every is None else save_every
        self._limit = math.inf if time_limit is None else time_limit
        self._processes = processes
        self._now = now
        self._begun = self._saved = self._asked = now()
        self._steps = 0
        self._next = 1

    def saved(self) -> None:
        """Tells that the run has just been saved."""
        self._saved = self._now()

    def due(self) -> Due:
        """After each step, in all processes."""
        if self._save_every == self._limit == math.inf:
            return Due(False, False)
        self._steps += 1
        if self._processes.count == 1:
            return self._look()
        if self._steps < self._next:
            return Due(False, False)
        due, self._next = self._processes.agreed((self._look(), self._later()))
        self._steps = 0
        return due

    def _look(self) -> Due:
        now = self._now()
        stop = now - self._begun >= self._limit
        return Due(stop or now - self._saved >= self._save_every, stop)

    def _later(self) -> int:
        """After how many steps to ask again."""
        now = self._now()
        each, self._asked = (now - self._asked) / self._steps, now
        return max(1, min(100, round(ASKED / each))) if each > 0 else 100
