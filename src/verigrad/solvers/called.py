"""What one call of torchdiffeq asks for, and what of it has no counterpart here."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.solvers.control import BatchCoupled, Control, Fixed, Replay
from verigrad.solvers.gradient import Adjoint
from verigrad.solvers.law import Law
from verigrad.solvers.solution import prescribed_grid
from verigrad.solvers.solve import Method
from verigrad.solvers.tableau import BOSH3, DOPRI5, EULER, HEUN2, MIDPOINT, RK4_38, TSIT5

ADAPTIVE = {"dopri5": DOPRI5, "bosh3": BOSH3, "adaptive_heun": HEUN2, "tsit5": TSIT5}
FIXED = {"euler": EULER, "midpoint": MIDPOINT, "heun2": HEUN2, "rk4": RK4_38}
"""torchdiffeq's names; its `rk4` is the 3/8 rule."""

OTHER_FIXED = {"heun3", "explicit_adams", "implicit_adams", "fixed_adams"}
"""Methods of torchdiffeq that take given steps and have no counterpart here."""

CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


class Call(NamedTuple):
    """What a call asks for. adjoint: the arguments of its name's second half that were given."""

    name: str
    func: Any
    y0: Any
    times: list[float]
    rtol: float
    atol: float
    method: str
    options: dict[str, Any]
    adjoint: dict[str, Any]


def read_call(name: str, arguments: Mapping[str, Any]) -> Call:
    """The arguments of a call, looked through."""
    given = dict(arguments)
    func, y0, t = (given.pop(key) for key in ("func", "y0", "t"))
    rtol, atol = (_tolerance(name, key, given.pop(key)) for key in ("rtol", "atol"))
    method, options = given.pop("method", None) or "dopri5", dict(given.pop("options", None) or {})
    adjoint = {key: given.pop(key) for key in list(given) if key.startswith("adjoint_")}
    _refuse(name, sorted(key for key, value in given.items() if value is not None))
    _refuse(name, [callback for callback in CALLBACKS if hasattr(func, callback)])
    adjoint = {key: value for key, value in adjoint.items() if value is not None}
    return Call(name, func, y0, _times(name, t), rtol, atol, method, options, adjoint)


def own_adjoint(call: Call) -> Adjoint:
    """What `odeint_adjoint` itself differentiates."""
    same = {"adjoint_method": call.method, "adjoint_options": call.options}
    _refuse(call.name, [key for key, value in same.items() if call.adjoint.get(key, value) != value])
    rtol, atol = (
        _tolerance(call.name, key, call.adjoint.get(key, forth))
        for key, forth in (("adjoint_rtol", call.rtol), ("adjoint_atol", call.atol))
    )
    return Adjoint(rtol=rtol, atol=atol, parameters=parameters(call))


def parameters(call: Call) -> tuple[Tensor, ...]:
    """The tensors that the field of a call depends on besides its state."""
    given = call.adjoint.get("adjoint_params")
    if given is None and not isinstance(call.func, nn.Module):
        raise BadInput(
            f"{call.name} must know the parameters of its field. Make it an nn.Module or give adjoint_params."
        )
    return tuple(call.func.parameters() if given is None else given)


def own_control(call: Call, start: float, stop: float, method: Method, law: Law) -> Control:
    """Who chooses the steps of a call between two of its times, by its own word."""
    fixed = call.method in FIXED or call.method in OTHER_FIXED
    unknown = sorted(call.options.keys() - ({"step_size"} if fixed else {"max_num_steps"}))
    if unknown:
        kind = "a fixed-step" if fixed else "an adaptive"
        raise BadInput(f"The options {unknown} of {kind} method cannot be carried.")
    if fixed:
        return _steps(start, stop, call.options.get("step_size"), method)
    limit = min(int(call.options.get("max_num_steps", 10_000)), 10_000)
    return BatchCoupled(rtol=call.rtol, atol=call.atol, law=law, max_steps=limit)


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


def _steps(start: float, stop: float, step_size: float | None, method: Method) -> Control:
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
