"""What a solve asks of its input; each complaint names the value, what was expected and the fix."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.solvers.control import BatchCoupled, Control, Fixed, PerSample, Replay
from verigrad.solvers.gradient import Adjoint, Checkpointed, Direct, Gradient
from verigrad.solvers.implicit import Implicit
from verigrad.solvers.state import Field, State
from verigrad.solvers.tableau import Tableau


def checked_state(y0: Tensor | tuple[Tensor, ...]) -> State:
    """y0 as a tuple of floating-point parts with one batch size."""
    parts = (y0,) if isinstance(y0, Tensor) else y0
    if not isinstance(parts, tuple) or not parts or not all(isinstance(part, Tensor) for part in parts):
        raise BadInput(f"The 'y0' of solve must be a tensor or a tuple of tensors. Got {type(y0).__name__}.")
    for part in parts:
        if not part.is_floating_point():
            raise BadInput(f"The 'y0' of solve must be floating point. Got {part.dtype}; convert it with .float().")
        if part.dim() == 0 or len(part) != len(parts[0]):
            shapes = [tuple(p.shape) for p in parts]
            raise BadInput(f"All parts of 'y0' must have the batch as their first dimension. Got shapes {shapes}.")
    return parts


def checked_times(t0: float, t1: float) -> tuple[float, float]:
    """t0 and t1 as finite floats."""
    for name, value in (("t0", t0), ("t1", t1)):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"The '{name}' of solve must be a finite float. Got {value!r}.")
    return float(t0), float(t1)


def checked_field(field: Callable[[Tensor, Any], Any], *, is_tensor: bool) -> Field:
    """The field on tuples, which complains if a derivative does not have the shape of its state, or is more precise."""

    def inner(t: Tensor, y: State) -> State:
        k = field(t, y[0]) if is_tensor else field(t, y)
        k = (k,) if isinstance(k, Tensor) else k
        if not isinstance(k, tuple | list) or not all(isinstance(part, Tensor) for part in k):
            form = "a tensor" if is_tensor else f"a tuple of {len(y)} tensors"
            raise BadInput(f"The field must return {form}, a derivative for each part of y. Got {type(k).__name__}.")
        k = tuple(k)
        if len(k) != len(y) or any(a.shape != b.shape for a, b in zip(k, y, strict=True)):
            got, want = [tuple(a.shape) for a in k], [tuple(b.shape) for b in y]
            raise BadInput(f"The field must return a derivative in the shape of the state, {want}. Got {got}.")
        for a, b in zip(k, y, strict=True):
            if a.dtype != b.dtype and torch.promote_types(a.dtype, b.dtype) != b.dtype:
                raise BadInput(
                    f"The field must return a derivative no more precise than the state, {b.dtype}. Got {a.dtype}; "
                    "convert the derivative, or y0."
                )
        return k

    return inner


def check_choices(method: Tableau | Implicit, control: Control, gradient: Gradient, y0: State) -> None:
    """That the method, the control and the gradient are some, and go together."""
    _check_type("method", method, (Tableau, Implicit), "e.g. DOPRI5")
    _check_type("control", control, (Fixed, PerSample, BatchCoupled, Replay), "e.g. PerSample(rtol=1e-3, atol=1e-3)")
    _check_type("gradient", gradient, (Direct, Checkpointed, Adjoint), "e.g. Direct(grid='frozen')")
    if isinstance(method, Implicit):
        if not isinstance(control, Fixed):
            raise BadInput(f"The implicit method {method.name} takes fixed steps only. Use control=Fixed(steps=...).")
        if not isinstance(gradient, Direct):
            raise BadInput(f"The implicit method {method.name} is differentiated by Direct() only. Got {gradient!r}.")
        if any(part.dtype.itemsize < 4 for part in y0):
            raise BadInput(f"The implicit method {method.name} needs float32 or better. Got {y0[0].dtype}.")
    elif isinstance(control, PerSample | BatchCoupled) and (method.error is None or not method.mid):
        raise BadInput(
            f"{type(control).__name__} needs a method that estimates its error. Got {method.name}; "
            "use DOPRI5, TSIT5, BOSH3 or HEUN2, or control=Fixed(steps=...)."
        )


def _check_type(name: str, value: object, kinds: tuple[type, ...], example: str) -> None:
    if not isinstance(value, kinds):
        one_of = ", ".join(kind.__name__ for kind in kinds)
        raise BadInput(f"The '{name}' of solve must be one of {one_of}. Got {value!r}; give {example}.")
