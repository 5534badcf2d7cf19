"""What the commands are tried with: a model outside the package, a shell, and a look at a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from verigrad.cli.main import main

MODEL = '''
import torch
from torch import nn

class Brightness(nn.Module):
    """Class 1 where the left half is brighter than the right, by a margin that an eps of 0.1 can often undo."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        lead = self.slope * (x[..., :2].mean((1, 2, 3)) - x[..., 2:].mean((1, 2, 3)))
        return torch.stack([-lead, lead], 1)

def random_weights():
    model = Brightness()
    nn.init.normal_(model.slope)
    return model
'''


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr of a command that exited with 2."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("error: ").rstrip("\n")


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        self.capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return Said(code, out, err)


def files(folder: Path) -> set[str]:
    """What lies in a folder, but for a ledger's lock."""
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts and path.suffix != ".lock")
    return {str(path.relative_to(folder)) for path in paths}
