"""What of a solve is differentiated, and how. An explicit choice: it decides what an attack sees."""

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from verigrad.core.errors import BadInput

GridGradient = Literal["frozen", "first", "all"]


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Backpropagation through the steps of the solver: exact for the discrete computation, memory grows with the steps.

    grid: what of the time grid is differentiated.
        "frozen": nothing; the steps are constants, chosen anew for each input.
        "first": the rule of the first step, as torchdiffeq does from 0.2.0 on, where the later factors are constants.
        "all": the rule of the first step and every change of the step size, as torchdiffeq did up to 0.1.1.

    Only the adaptive controls have a grid to differentiate; under `Fixed` and `Replay` the three are the same.
    """

    grid: GridGradient = "frozen"

    def __post_init__(self) -> None:
        if self.grid not in ("frozen", "first", "all"):
            raise BadInput(f"The 'grid' of Direct must be 'frozen', 'first' or 'all'. Got {self.grid!r}.")


@dataclass(frozen=True, kw_only=True)
class Checkpointed:
    """The gradient of `Direct(grid="frozen")` in less memory: some states are kept, the rest is made anew.

    every: how many steps lie between two kept states; None takes the square root of their number, which lets the
        memory grow with the square root of the steps. An adaptive control first finds its grid without a graph and
        then replays it, so that the field is called twice forwards and once more backwards.
        Below four steps None keeps the graph of all: the memory is that of Direct, and nothing is made anew backwards.
    """

    every: int | None = None

    def __post_init__(self) -> None:
        if self.every is not None and (type(self.every) is not int or self.every < 1):
            raise BadInput(f"The 'every' of Checkpointed must be an integer, at least 1, or None. Got {self.every!r}.")


@dataclass(frozen=True, kw_only=True)
class Adjoint:
    """The continuous adjoint (Pontryagin 1962; Chen et al. 2018, Algorithm 1): constant memory, not the exact gradient.

    It differs from the gradient of what was computed by the errors of both solves, more where the field is not smooth.

    rtol, atol: tolerance of the solve backwards in time, which is batch-coupled under an adaptive control; under
        `Fixed`, and under a `Replay` by a method without an error estimate, it takes the same steps back.
    parameters: the tensors that the field depends on besides y; None takes those of a field that is an `nn.Module`.

    Second derivatives raise. A sample that did not reach t1 takes no part in the solve backwards: its gradient is NaN,
    and so is that of the parameters; both are zero instead as far as the loss does not depend on it. If the solve
    backwards fails, every gradient is NaN.
    """

    rtol: float
    atol: float
    parameters: tuple[Tensor, ...] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not isinstance(value, int | float) or not 0.0 <= value < math.inf:
                raise BadInput(f"The '{name}' of Adjoint must be a float in [0, inf). Got {value!r}.")
        if self.rtol == self.atol == 0.0:
            raise BadInput("Adjoint cannot meet a tolerance of zero. Give a positive 'rtol' or 'atol', e.g. 1e-3.")


Gradient = Direct | Checkpointed | Adjoint
