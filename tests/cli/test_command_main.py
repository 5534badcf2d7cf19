"""The entry point: help, version, no torch where none is needed, and errors in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import verigrad as face
from verigrad.cli import main as entry
from verigrad.core.errors import BadInput
from verigrad.ledger.errors import LedgerError

RUN = "from verigrad.cli.main import run; run()"
COMMANDS = ("demo", "inspect", "audit", "verify", "report", "attack", "train", "list")


def test_version(verigrad) -> None:
    said = verigrad("--version")
    assert (said.code, said.out) == (0, f"verigrad {face.__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(verigrad, arguments: tuple[str, ...]) -> None:
    said = verigrad(*arguments)
    assert said.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(verigrad, command: str) -> None:
    said = verigrad(command, "--help")
    assert said.code == 0
    assert f"verigrad {command}" in said.out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["report", "nowhere"], ["audit", "--help"]])
def test_torch_is_not_imported_where_it_is_not_needed(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from verigrad.cli.main import main; "
        f"main({arguments!r}); heavy = {{'torch', 'sklearn', 'matplotlib'}} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["lisst"], "Did you mean 'list'"),
        (["--nonsense"], "--nonsense"),
        (["list", "--nonsense"], "verigrad list --help"),
        (["attack"], "Missing"),
        (["attack", "m:f", "--data", "d", "--threat", "t", "--attacks", "pgd", "--n", "many"], "'--n'"),
        (["attack", "m:f", "--data", "d", "--threat", "t", "--attacks", "pgd", "--batch", "0"], "'--batch'"),
        (["train", "--model", "m", "--data", "d", "--out", "o", "--optimiser", "lion"], "'lion'"),
    ],
)
def test_wrong_usage_is_one_line(verigrad, arguments: list[str], part: str) -> None:
    assert part in verigrad(*arguments).error


@pytest.mark.parametrize(
    "error",
    [
        BadInput("A line.\n  And another."),
        LedgerError("A line. And another."),
        PermissionError(13, "A line. And another."),
    ],
)
def test_what_a_user_can_mend_is_one_line(verigrad, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(entry, "app", fail)
    assert "A line. And another." in verigrad("list").error


def test_what_a_user_cannot_mend_keeps_its_traceback(verigrad, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(entry, "app", fail)
    with pytest.raises(ZeroDivisionError):
        verigrad("list")


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch):
    """Adds a command "leaving", whose body is given."""

    def add(body) -> None:
        monkeypatch.setattr(entry.app, "registered_commands", [*entry.app.registered_commands])
        entry.app.command("leaving")(body)

    return add


@pytest.mark.parametrize("code", [0, 1, None, "bye"])
def test_an_exit_in_the_body_of_a_command_is_an_error(verigrad, leaving, code: object) -> None:
    def body() -> None:
        sys.exit(code)

    leaving(body)
    error = verigrad("leaving").error
    assert f"sys.exit({code!r})" in error
    assert "let it raise an error" in error


@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_of_a_command_itself_is_its_code(verigrad, leaving, code: int) -> None:
    def body() -> None:
        raise typer.Exit(code)

    leaving(body)
    said = verigrad("leaving")
    assert (said.code, said.out, said.err) == (code, "", "")


ENDLESS = """
import time
from verigrad.cli import main

def endless():
    open("began", "w").close()
    time.sleep(60)

main.app.command("endless")(endless)
main.run()
"""


@pytest.mark.parametrize(
    ("arguments", "resumed"),
    [
        (["audit", "m:f", "--out", "o"], True),
        (["train", "--model", "m", "--out=o"], True),
        (["demo"], True),
        (["attack", "m:f", "--out", "o"], True),
        (["attack", "m:f", "--out=o"], True),
        (["attack", "m:f"], False),
        (["verify", "o"], False),
        (["report", "o"], False),
        (["list"], False),
        ([], False),
    ],
)
def test_an_interrupt_says_how_to_go_on_where_that_is_true(
    verigrad, monkeypatch: pytest.MonkeyPatch, arguments: list[str], resumed: bool
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "app", interrupted)
    said = verigrad(*arguments)
    more = " The same command goes on where it stopped." if resumed else ""
    assert (said.code, said.err) == (130, f"error: interrupted.{more}\n")


def test_an_interrupt_is_told_in_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "endless"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if (tmp_path / "began").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert err == "error: interrupted.\n"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run([sys.executable, "-c", RUN, "list"], stdout=gone, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (0, 1)
    assert done.stderr == ""
