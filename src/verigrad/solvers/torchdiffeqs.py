"""Which modules of this process are torchdiffeq, and of which version."""

import inspect
import sys
from types import FunctionType, ModuleType

from verigrad.solvers.gradient import GridGradient
from verigrad.solvers.law import TORCHDIFFEQ_0_0_1, TORCHDIFFEQ_0_2_5, Law

NAMES = ("odeint", "odeint_adjoint")

STAND_IN = "<torchdiffeq, carried>"
"""The file that the code of an exchanged function says it is from."""


def torchdiffeqs() -> list[ModuleType]:
    """The modules of this process that are torchdiffeq, under whatever name: none is imported for it.

    Such a module, or a copy that somebody's package brings along, has `odeint` and `odeint_adjoint`, plain functions
    of func, y0 and t that were written in it or below it.
    """
    found: dict[str, FunctionType] = {}
    for name, module in sys.modules.copy().items():
        # Asked in any other way a module that loads itself lazily would be loaded.
        inside = object.__getattribute__(module, "__dict__") if isinstance(module, ModuleType) else {}
        odeint = inside.get("odeint")
        if isinstance(odeint, FunctionType) and all(_looks_right(inside.get(one), name) for one in NAMES):
            found[name] = odeint
    # A package has what its inner modules have; the shortest name is its own.
    first = {odeint: name for name, odeint in sorted(found.items(), key=lambda item: -len(item[0]))}
    return [sys.modules[name] for name in first.values()]


def _looks_right(function: object, package: str) -> bool:
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    below = f"{function.__module__}.".startswith(f"{package}.")
    exchanged = code.co_filename == STAND_IN
    return below and (exchanged or (code.co_varnames[:3] == ("func", "y0", "t") and not code.co_freevars))


def version(module: ModuleType, odeint: FunctionType) -> tuple[Law, GridGradient]:
    """The law that a version follows, and what of the grid it differentiates.

    0.0.x does not name its version. A copy without a name whose `odeint` knows events is of 0.2 or later.
    """
    later = "event_fn" in inspect.signature(odeint).parameters
    named = str(getattr(module, "__version__", "0.2" if later else "0.0"))
    if named.startswith("0.0"):
        return TORCHDIFFEQ_0_0_1, "all"
    return TORCHDIFFEQ_0_2_5, "all" if named.startswith("0.1.") else "first"
