"""Models that we did not write: their calls of torchdiffeq, carried onto this engine.

    with carried(torchdiffeq, gradient=Direct(grid="frozen")) as solves:
        logits = model(x)

Inside, `odeint` and `odeint_adjoint` of that module are solved here. It is the code of the two functions that is
exchanged, not their names, so every reference is carried, also that of a model which did `from torchdiffeq import
odeint` long before. The exchange holds for the whole process, all threads included, and ends with the context.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.solvers.control import BatchCoupled, Control, Fixed, PerSample, Replay
from verigrad.solvers.gradient import Adjoint, Direct, Gradient, GridGradient
from verigrad.solvers.law import TORCHDIFFEQ_0_0_1, TORCHDIFFEQ_0_2_5, Law
from verigrad.solvers.raising import raise_unsolved, solve_or_raise
from verigrad.solvers.solution import Grid, Stats, prescribed_grid
from verigrad.solvers.solve import solve
from verigrad.solvers.tableau import BOSH3, DOPRI5, EULER, HEUN2, MIDPOINT, RK4_38, TSIT5, Tableau

ADAPTIVE = {"dopri5": DOPRI5, "bosh3": BOSH3, "adaptive_heun": HEUN2, "tsit5": TSIT5}
FIXED = {"euler": EULER, "midpoint": MIDPOINT, "heun2": HEUN2, "rk4": RK4_38}
"""torchdiffeq's names; its `rk4` is the 3/8 rule."""

Chosen = Callable[[float, float], Control]


class Carried(NamedTuple):
    """What one carried call did."""

    grid: Grid
    stats: Stats


CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


@dataclass(frozen=True, kw_only=True)
class _Carrier:
    """How calls are carried while a context is open. grid: what torchdiffeq of this version differentiates."""

    law: Law
    grid: GridGradient
    control: Chosen | None
    gradient: Gradient | None
    method: Tableau | None
    solves: list[Carried]

    def __call__(self, name: str, func: Any, y0: Any, t: Tensor, call: dict[str, Any]) -> Any:
        options = dict(call.pop("options", None) or {})
        rtol, atol = (
            _tolerance(name, key, call.pop(key, default)) for key, default in (("rtol", 1e-7), ("atol", 1e-9))
        )
        chosen = call.pop("method", None) or "dopri5"
        adjoint = {key: call.pop(key, None) for key in list(call) if key.startswith("adjoint_")}
        _refuse(name, sorted(key for key, value in call.items() if value is not None))
        _refuse(name, [callback for callback in CALLBACKS if hasattr(func, callback)])
        times = _times(name, t)
        gradient = self.gradient or self._faithful(name, func, rtol, atol, chosen, options, adjoint)
        method = self.method or ADAPTIVE.get(chosen) or FIXED.get(chosen)
        if method is None:
            raise BadInput(
                f"The method {chosen!r} of {name} cannot be carried; only {sorted({**ADAPTIVE, **FIXED})} can. "
                "Choose one with carried(..., method=...)."
            )
        ys = [y0]
        for start, stop in pairwise(times):
            control = self._control(chosen, options, rtol, atol, start, stop, method)
            ys.append(self._solve(func, ys[-1], start, stop, method, control, gradient))
        return (
            torch.stack(ys) if isinstance(y0, Tensor) else tuple(torch.stack(parts) for parts in zip(*ys, strict=True))
        )

    def _faithful(
        self,
        name: str,
        func: Any,
        rtol: float,
        atol: float,
        chosen: str,
        options: dict[str, Any],
        adjoint: dict[str, Any],
    ) -> Gradient:
        """What torchdiffeq itself would differentiate."""
        if name == "odeint":
            return Direct(grid=self.grid)
        same = {"adjoint_method": (None, chosen), "adjoint_options": (None, options)}
        _refuse(name, [key for key, allowed in same.items() if adjoint.get(key) not in allowed])
        given = adjoint.get("adjoint_params")
        if given is None and not isinstance(func, nn.Module):
            raise BadInput(
                f"{name} must know the parameters of its field. Make it an nn.Module or give adjoint_params."
            )
        parameters = tuple(func.parameters() if given is None else given)
        back = [
            forth if adjoint.get(key) is None else _tolerance(name, key, adjoint[key])
            for key, forth in (("adjoint_rtol", rtol), ("adjoint_atol", atol))
        ]
        return Adjoint(rtol=back[0], atol=back[1], parameters=parameters)

    def _control(
        self,
        chosen: str,
        options: dict[str, Any],
        rtol: float,
        atol: float,
        start: float,
        stop: float,
        method: Tableau,
    ) -> Control:
        if self.control is not None:
            return self.control(rtol, atol)
        if chosen in ADAPTIVE:
            unknown = sorted(options.keys() - {"max_num_steps"})
            if unknown:
                raise BadInput(f"The options {unknown} of an adaptive method cannot be carried.")
            limit = min(int(options.get("max_num_steps", 10_000)), 10_000)
            return BatchCoupled(rtol=rtol, atol=atol, law=self.law, max_steps=limit)
        unknown = sorted(options.keys() - {"step_size"})
        if unknown:
            raise BadInput(f"The options {unknown} of a fixed-step method cannot be carried.")
        return _steps(start, stop, options.get("step_size"), method)

    def _solve(
        self, func: Any, y0: Any, t0: float, t1: float, method: Tableau, control: Control, gradient: Gradient
    ) -> Any:
        """The state may have any shape: a batch that shares its steps is wrapped as one sample."""
        if isinstance(control, PerSample):
            solution = solve_or_raise(func, y0, t0=t0, t1=t1, method=method, control=control, gradient=gradient)
            self.solves.append(Carried(solution.grid, solution.stats))
            return solution.y1
        single = isinstance(y0, Tensor)
        state = tuple(part[None] for part in ((y0,) if single else y0))

        def field(t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            k = func(t, y[0][0] if single else tuple(part[0] for part in y))
            return tuple(part[None] for part in ((k,) if single else k))

        solution = solve(field, state, t0=t0, t1=t1, method=method, control=control, gradient=gradient)
        y1 = tuple(part[0] for part in solution.y1)
        end = y1[0] if single else y1
        raise_unsolved(solution, func, end, t0=t0, t1=t1)
        self.solves.append(Carried(solution.grid, solution.stats))
        return end


def _refuse(name: str, named: list[str]) -> None:
    if named:
        raise BadInput(f"Calls of {name} with {named} cannot be carried. Leave the model to torchdiffeq.")


def _tolerance(name: str, key: str, value: Any) -> float:
    """One tolerance for all entries as a float."""
    if (isinstance(value, Tensor) and value.numel() == 1) or isinstance(value, int | float):
        return float(value)
    raise BadInput(f"Calls of {name} with a '{key}' for each entry cannot be carried. Got {value!r}; give one float.")


def _times(name: str, t: Any) -> list[float]:
    """The output times as floats: without a gradient, all in one direction."""
    if not isinstance(t, Tensor) or t.dim() != 1 or len(t) < 1:
        raise BadInput(f"Calls of {name} whose 't' is not a tensor of times cannot be carried. Got {t!r}.")
    if t.requires_grad:
        raise BadInput(f"Calls of {name} that differentiate 't' cannot be carried. Detach it.")
    times = t.tolist()
    steps = [b - a for a, b in pairwise(times)]
    if not (all(h > 0 for h in steps) or all(h < 0 for h in steps)):
        raise BadInput(f"Calls of {name} cannot be carried unless 't' rises or falls throughout. Got {times}.")
    return times


def _steps(start: float, stop: float, step_size: float | None, method: Tableau) -> Control:
    """torchdiffeq's fixed grid: one step, or steps of the given size of which the last one is shorter."""
    if step_size is None:
        return Fixed(steps=1)
    if not 0.0 < step_size < math.inf:
        raise BadInput(f"The 'step_size' of a fixed-step method must be a positive float. Got {step_size!r}.")
    sign = 1.0 if stop > start else -1.0
    t = []
    while sign * (stop - (start + sign * len(t) * step_size)) > 1e-9 * step_size:
        t.append(start + sign * len(t) * step_size)
    h = tuple(b - a for a, b in zip(t, [*t[1:], stop], strict=True))
    return Replay(grid=prescribed_grid(tuple(t), h, end="clip", carries=False, method=method.name))


_open: dict[str, _Carrier] = {}


@contextmanager
def carried(
    module: ModuleType,
    *,
    control: Chosen | None = None,
    gradient: Gradient | None = None,
    method: Tableau | None = None,
) -> Iterator[list[Carried]]:
    """Carry the calls of torchdiffeq's `odeint` and `odeint_adjoint` onto `solve` while the context is open.

    module: torchdiffeq; its version is read from it. Up to 0.1.x it differentiates the whole grid, later the first
        step; 0.0.x has the older law.
    control: from a call's rtol and atol to a control, e.g. `lambda rtol, atol: PerSample(rtol=rtol, atol=atol)`;
        it stands in for the options of the call too. None keeps what the call asked for, under the law of the
        version.
    gradient, method: in place of the call's own; None keeps what torchdiffeq of that version does.

    Yields the list to which each carried solve adds its grid and its cost. Between more than two times each stretch
    is solved on its own, where torchdiffeq would go on with its last step. What cannot be carried raises BadInput:
    events, dense output, callbacks, a tolerance for each entry, gradients with respect to t, an `adjoint_method` or
    `adjoint_options` of its own, and options other than `step_size` and `max_num_steps`. An unsolved sample raises,
    as in torchdiffeq.
    """
    key = module.__name__
    if key in _open:
        raise BadInput(f"The calls of {key} are carried already. Close that context first.")
    functions: dict[str, FunctionType] = {}
    for name in ("odeint", "odeint_adjoint", "odeint_dense"):
        function = getattr(module, name, None)
        if function is None and name == "odeint_dense":  # old versions have none
            continue
        if not isinstance(function, FunctionType) or function.__code__.co_freevars:
            raise BadInput(f"The {name} of {key} is wrapped in another function and cannot be carried. Unwrap it.")
        functions[name] = function
    law, grid = _version(module)
    solves: list[Carried] = []
    kept: dict[str, tuple[Any, Any, Any]] = {}
    _open[key] = _Carrier(law=law, grid=grid, control=control, gradient=gradient, method=method, solves=solves)
    try:
        for name, function in functions.items():
            kept[name] = function.__code__, function.__defaults__, function.__kwdefaults__
            stand_in = _stand_in(key, name)
            function.__code__, function.__defaults__, function.__kwdefaults__ = stand_in.__code__, None, None
        yield solves
    finally:
        for name, own in kept.items():
            functions[name].__code__, functions[name].__defaults__, functions[name].__kwdefaults__ = own
        del _open[key]


def _version(module: ModuleType) -> tuple[Law, GridGradient]:
    """The law and the differentiated grid of the version; 0.0.x does not name its version."""
    version = str(getattr(module, "__version__", "0.0"))
    if version.startswith("0.0"):
        return TORCHDIFFEQ_0_0_1, "all"
    return TORCHDIFFEQ_0_2_5, "all" if version.startswith("0.1.") else "first"


_POSITIONS = ("rtol", "atol", "method", "options")
_ADJOINT_POSITIONS = tuple(f"adjoint_{which}" for which in (*_POSITIONS, "params"))


def carry(key: str, name: str, func: Any, y0: Any, t: Tensor, positional: tuple[Any, ...], call: dict[str, Any]) -> Any:
    """Where an exchanged function lands."""
    if name == "odeint_dense":
        raise BadInput("Calls of odeint_dense cannot be carried. Leave the model to torchdiffeq.")
    names = (*_POSITIONS, *_ADJOINT_POSITIONS) if name == "odeint_adjoint" else _POSITIONS
    if len(positional) > len(names):
        raise BadInput(f"Calls of {name} with {3 + len(positional)} positional arguments cannot be carried.")
    return _open[key](name, func, y0, t, {**dict(zip(names, positional, strict=False)), **call})


def _stand_in(key: str, name: str) -> FunctionType:
    """A function without free variables, whose code can take another's place; it finds its way back by import."""
    source = (
        "def stand_in(func, y0, t, *positional, **call):\n"
        "    from verigrad.solvers.foreign import carry\n"
        f"    return carry({key!r}, {name!r}, func, y0, t, positional, call)\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, __file__, "exec"), scope)
    return scope["stand_in"]
