"""Who chooses the steps: nobody (`Fixed`), each sample (`PerSample`), the batch (`BatchCoupled`), an earlier solve
(`Replay`).

The two adaptive controls follow one law, that of torchdiffeq, so that `PerSample` gives each sample what
`BatchCoupled` gives at batch size one. The error ratio of an attempted step is (SONet paper, section 6.1.2)

    err = max over the parts of  √( mean_i ( e_i / (atol + rtol · max(|y_i|, |y1_i|)) )² )

over the entries of one sample (`PerSample`) or of the whole batch (`BatchCoupled`). A step is accepted if err ≤ 1,
and the next length is h · min(10, max(0.9 · err^(−1/p), 0.2)), with 1 in place of 0.2 if err < 1.
"""

import math
from dataclasses import dataclass, field

from verigrad.core.errors import BadInput
from verigrad.solvers.law import TORCHDIFFEQ_0_2_5, Law
from verigrad.solvers.solution import End, Grid


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """`steps` steps of equal length for everybody. steps: at least 1."""

    steps: int

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise BadInput(f"The 'steps' of Fixed must be an integer of at least 1. Got {self.steps!r}.")


@dataclass(frozen=True, kw_only=True)
class _Adaptive:
    """rtol, atol: relative and absolute tolerance, in [0, inf), not both zero.

    end: "interpolate" passes t1 with the last step and interpolates back, as torchdiffeq does; "clip" shortens the
        last step.
    max_steps: attempted steps after which a sample is given up.
    law: the two published forms of the step-size law differ in detail, see `law.py`.
    """

    rtol: float
    atol: float
    end: End = "interpolate"
    max_steps: int = 10_000
    law: Law = TORCHDIFFEQ_0_2_5

    def __post_init__(self) -> None:
        name = type(self).__name__
        for which, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not isinstance(value, int | float) or not 0.0 <= value < math.inf:
                raise BadInput(f"The '{which}' of {name} must be a float in [0, inf). Got {value!r}.")
        if self.rtol == self.atol == 0.0:
            raise BadInput(f"{name} cannot meet a tolerance of zero. Give a positive 'rtol' or 'atol', e.g. 1e-3.")
        if self.end not in ("clip", "interpolate"):
            raise BadInput(f"The 'end' of {name} must be 'clip' or 'interpolate'. Got {self.end!r}.")
        if type(self.max_steps) is not int or self.max_steps < 1:
            raise BadInput(f"The 'max_steps' of {name} must be an integer of at least 1. Got {self.max_steps!r}.")


@dataclass(frozen=True, kw_only=True)
class PerSample(_Adaptive):
    """Each sample has its own steps, chosen from its own error alone; a finished sample is evaluated no more."""


@dataclass(frozen=True, kw_only=True)
class BatchCoupled(_Adaptive):
    """The batch has one step, chosen from the error of all samples together, as in torchdiffeq.

    So the prediction for one sample, and with `Direct(grid="all")` its gradient, depend on its batch-mates.
    """


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The accepted steps of an earlier solve, by the same method over the same interval.

    grid: of one row, which fits any batch, or of one for each sample, in the order of the batch. Rows that did not
        reach t1 when the grid was made do not now: their status is GRID_ENDED. A shared grid gives the same bits as
        the solve that made it; rows of their own give them up to rounding only, since refused attempts are left out
        and so the chunks that the field sees differ.

    starts, lengths: the steps of a grid of one row, read once, so that no replay has to read a tensor.
    """

    grid: Grid
    starts: tuple[float, ...] = field(init=False, repr=False, default=())
    lengths: tuple[float, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        if not isinstance(self.grid, Grid):
            raise BadInput(f"The 'grid' of Replay must be the Grid of a solution. Got {self.grid!r}.")
        if self.grid.shared:
            object.__setattr__(self, "starts", tuple(self.grid.t[0].tolist()))
            object.__setattr__(self, "lengths", tuple(self.grid.h[0].tolist()))


Control = Fixed | PerSample | BatchCoupled | Replay
