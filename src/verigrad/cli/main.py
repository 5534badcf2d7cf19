"""The entry point: `verigrad COMMAND`. Errors that a user can mend are one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from verigrad import __version__
from verigrad.cli.attack import attack
from verigrad.cli.audit import audit
from verigrad.cli.certify import certify
from verigrad.cli.data import app as data
from verigrad.cli.demo import demo
from verigrad.cli.inspect import inspect
from verigrad.cli.listing import listing
from verigrad.cli.report import report
from verigrad.cli.reproduce import reproduce
from verigrad.cli.train import train
from verigrad.cli.verify import command as verify
from verigrad.core.errors import BadInput, VerigradError
from verigrad.ledger.errors import LedgerError

BAD_INPUT = 2
INTERRUPTED = 130
# What keeps its state in a folder, and whether only where --out names one.
RESUMED = {"audit": False, "demo": False, "train": False, "attack": True, "certify": False, "reproduce": False}


class Commands(TyperGroup):
    """Where the body of every command runs. An exit code of somebody's model would be taken for a verdict's."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SystemExit as fault:
            if isinstance(fault.__context__, BrokenPipeError):  # rich leaves so when our output's reader went away
                raise fault.__context__ from None
            raise BadInput(
                f"Code that the command called, such as the model's, ended the program by sys.exit({fault.code!r}). "
                "Exit codes are verdicts here: let it raise an error."
            ) from fault


app = typer.Typer(
    cls=Commands,
    name="verigrad",
    help="Is this model robust, or are its gradients lying?",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("demo")(demo)
app.command("inspect")(inspect)
app.command("audit")(audit)
app.command("verify")(verify)
app.command("report")(report)
app.command("attack")(attack)
app.command("certify")(certify)
app.command("train")(train)
app.command("reproduce")(reproduce)
app.add_typer(data, name="data")
app.command("list")(listing)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"verigrad {__version__}")
        raise typer.Exit


@app.callback()
def _face(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        code = app(list(arguments) if arguments is not None else None, prog_name="verigrad", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context else "verigrad"
        return _say(f"{error.format_message().rstrip('.?')}. See {where} --help.")
    except BrokenPipeError:
        # The reader of our output went away: nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (VerigradError, LedgerError, OSError) as error:
        return _say(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say(f"interrupted.{_going_on(sys.argv[1:] if arguments is None else arguments)}")
    return code if isinstance(code, int) else 0


def _going_on(words: Sequence[str]) -> str:
    command = next(iter(words), "")
    named = any(word.partition("=")[0] == "--out" for word in words)
    if command not in RESUMED or (RESUMED[command] and not named):
        return ""
    return " The same command goes on where it stopped."


def _say(message: str) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return BAD_INPUT


def run() -> None:
    """What the script `verigrad` calls."""
    sys.exit(main())
