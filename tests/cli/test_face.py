"""The public face: every name is there, and importing it brings no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import verigrad

CLASSES = ("Audit", "Claim", "Linf", "L2", "L0", "PGD", "FGSM", "SPSA", "CarliniWagnerLinf")
NAMES = (*CLASSES, "audit", "load_model", "load_data", "facts", "twin", "verify", "__version__")


def test_importing_it_brings_no_torch() -> None:
    code = "import sys, verigrad; dir(verigrad); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    assert name in dir(verigrad)
    assert getattr(verigrad, name) is getattr(verigrad, name)
    assert name.startswith("_") or callable(getattr(verigrad, name))


def test_what_type_checkers_see_is_what_there_is() -> None:
    source = Path(verigrad.__file__).read_text()
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen - {None} == set(NAMES) - {"__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'adit'"):
        verigrad.adit  # type: ignore[attr-defined]  # noqa: B018
