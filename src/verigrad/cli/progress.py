"""Progress of anything that takes over two seconds: a bar on a terminal, plain lines elsewhere. Both go to stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Timer
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# What is done within this time shows nothing; plain lines are at least this far apart.
PATIENCE = 2.0


# From how many are done, and how many there are, to text.
Count = Callable[[int, int | None], str]


class Advance(Protocol):
    """Tells that n more are done, and what is being done now."""

    def __call__(self, n: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(text: str, total: int | None, *, steps: bool = False, console: Console | None = None) -> Iterator[Advance]:
    """Shows how far a block has come.

    Args:
        text: what is done.
        total: how many there are to do; None where that is not known.
        steps: whether what is counted are steps begun, of about `total`. Each is a line of its own without a terminal,
            however quick it is.
        console: where to show it; stderr by default.

    Yields:
        a function of how many more are done (1 by default), and a note on what is being done now.
    """
    console = console or Console(stderr=True)
    count = _step if steps else _count
    shown = _bar(text, total, count, console) if console.is_terminal else _lines(text, total, count, console)
    with shown as advance:
        yield advance


def follow(advance: Advance, note: str = "") -> Callable[[int, int], None]:
    """A function of (done, total), as evaluation reports it, that moves `advance` on."""
    seen = 0

    def told(done: int, total: int) -> None:
        nonlocal seen
        del total
        advance(done - seen, note)
        seen = done

    return told


@contextmanager
def _bar(text: str, total: int | None, count: Count, console: Console) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))
    bar = Progress(*columns, *times, console=console, transient=True)
    task = bar.add_task(text, total=total, count="", note="")
    done = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done
        done += n
        bar.update(task, completed=done, count=count(done, total), note=note)

    timer = Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield advance
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


@contextmanager
def _lines(text: str, total: int | None, count: Count, console: Console) -> Iterator[Advance]:
    last = time.monotonic()
    done = 0

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal last, done
        done += n
        if time.monotonic() - last >= PATIENCE or (n and count is _step):
            last = time.monotonic()
            parts = [part for part in (count(done, total), note) if part]
            told = (": " if count is _step else " ").join(parts)
            console.print(f"{text}: {told}" if told else text, markup=False, highlight=False, soft_wrap=True)

    yield advance


def _count(done: int, total: int | None) -> str:
    return f"{done}/{total}" if total is not None else ""


def _step(done: int, total: int | None) -> str:
    return f"step {done}" if total is None else f"step {done} of about {max(done, total)}"


@contextmanager
def lanes(
    names: Iterable[str], *, console: Console | None = None
) -> Iterator[Callable[[str, str, float | None], None]]:
    """Shows several things that go on side by side.

    Yields:
        a function of the lane's name, what it is doing now, and how much of that is done, from 0 to 1 or None.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        with ExitStack() as stack:
            lines = {name: stack.enter_context(_lines(name, None, _count, console)) for name in names}
            yield lambda name, note, share: lines[name](1, note)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console, transient=True) as bars:
        tasks = {name: bars.add_task(name, total=None, note="") for name in names}
        yield lambda name, note, share: bars.update(
            tasks[name], note=note, total=None if share is None else 1.0, completed=share or 0.0
        )
