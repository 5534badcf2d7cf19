"""torchdiffeq in the two versions whose laws and gradients the solvers reproduce.

0.2.5 is installed; 0.0.1, which the SONet code pins, lies beside it as `.oracles/torchdiffeq-0.0.1` and is loaded under
the name `torchdiffeq_0_0_1`.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def torchdiffeq_0_0_1() -> ModuleType:
    """The old release; the test is skipped where `make test` has not fetched it."""
    import pytest

    name = "torchdiffeq_0_0_1"
    if name not in sys.modules:
        package = ROOT / ".oracles" / "torchdiffeq-0.0.1" / "torchdiffeq"
        if not package.is_dir():
            pytest.skip("torchdiffeq 0.0.1 is not in .oracles; `make test` puts it there")
        spec = importlib.util.spec_from_file_location(
            name, package / "__init__.py", submodule_search_locations=[str(package)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def torchdiffeq_0_2_5() -> ModuleType:
    """The installed release."""
    import torchdiffeq

    return torchdiffeq
