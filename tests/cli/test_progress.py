"""Progress: nothing for what is quick, lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from verigrad.cli import progress as room
from verigrad.cli.progress import follow, progress


def test_what_is_quick_shows_nothing() -> None:
    for terminal in (False, True):
        stream = io.StringIO()
        with progress("work", 10, console=Console(file=stream, force_terminal=terminal)) as advance:
            for _ in range(10):
                advance()
        assert stream.getvalue() == ""


def test_lines_say_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.0)
    stream = io.StringIO()
    with progress("work", 10, console=Console(file=stream, force_terminal=False)) as advance:
        advance(3, note="[first]")
        advance(0)
    with progress("audit", None, console=Console(file=stream, force_terminal=False)) as advance:
        advance(note="health")
        advance()
    assert stream.getvalue() == "work: 3/10 [first]\nwork: 3/10\naudit: health\naudit\n"


def test_steps_are_told_however_quick_they_are() -> None:
    stream = io.StringIO()
    with progress("audit", 2, steps=True, console=Console(file=stream, force_terminal=False)) as advance:
        for n, note in ((1, "health"), (0, "health: quick"), (1, "claim"), (1, "more than was thought")):
            advance(n, note)
    assert stream.getvalue().splitlines() == [
        "audit: step 1 of about 2: health",
        "audit: step 2 of about 2: claim",
        "audit: step 3 of about 3: more than was thought",
    ]


def test_lines_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.2)
    stream = io.StringIO()
    with progress("work", 100, console=Console(file=stream, force_terminal=False)) as advance:
        for _ in range(50):
            advance()
            time.sleep(0.01)
    assert 1 <= stream.getvalue().count("\n") <= 2


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.05)
    stream = io.StringIO()
    with progress("work", 4, console=Console(file=stream, force_terminal=True, width=100)) as advance:
        advance(2, note="half")
        time.sleep(0.4)
        advance(2)
    assert "2/4" in stream.getvalue()
    assert "half" in stream.getvalue()


def test_an_error_passes_through() -> None:
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with pytest.raises(ZeroDivisionError), progress("work", 4, console=console):
            raise ZeroDivisionError


def test_totals_become_steps() -> None:
    steps: list[int] = []

    def advance(n: int = 1, note: str = "") -> None:
        steps.append(n)

    told = follow(advance)
    for done in (2, 2, 7):
        told(done, 10)
    assert steps == [2, 0, 5]
