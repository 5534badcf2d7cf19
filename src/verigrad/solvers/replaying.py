"""Whether a grid can be walked again: by which method, over which interval, and how far it reaches."""

import dataclasses

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.solvers.control import Replay
from verigrad.solvers.solution import Grid
from verigrad.solvers.tableau import Tableau


def reached(control: Replay, method: Tableau, t0: float, t1: float, batch: int) -> bool | Tensor:
    """Who of the batch reaches t1 along the grid: (B,) bool, or one bool if the batch shares its steps.

    Raises BadInput for a grid of another method, of another start or direction, or with other rows than the batch.
    """
    grid = control.grid
    if grid.method != method.name:
        raise BadInput(
            f"The grid to replay was made by the method {grid.method}, whose stages it fits. Got {method.name}; "
            f"replay with {grid.method}, or solve anew."
        )
    if grid.end == "interpolate" and method.mid is None:
        raise BadInput(
            f"The grid to replay passes t1, but {method.name} has no interpolant. Record it with end='clip'."
        )
    if grid.shared:
        return _together(control, t0, t1)
    if len(grid.steps) != batch:
        raise BadInput(
            f"The grid to replay has {len(grid.steps)} rows, one for each sample, but the batch has {batch} samples. "
            "Solve and replay the same batch, or record the grid under BatchCoupled."
        )
    return _apart(grid, t0, t1)


def mirrored(grid: Grid) -> Grid:
    """The steps of a shared grid that lands on its end, from there back to its start."""
    return dataclasses.replace(grid, t=(grid.t + grid.h).flip(1), h=-grid.h.flip(1), carries=False)


def _slack(t0: float, t1: float) -> float:
    """What sums of step lengths may miss a time by."""
    return 1e-9 * max(abs(t0), abs(t1), abs(t1 - t0))


# Once on floats and once on tensors: a shared grid must be replayed without reading a tensor.
def _together(control: Replay, t0: float, t1: float) -> bool:
    if not control.starts:
        return False
    sign, slack = (1.0 if t1 > t0 else -1.0), _slack(t0, t1)
    first, last, final = control.starts[0], control.starts[-1], control.starts[-1] + control.lengths[-1]
    _check_start(abs(first - t0) > slack, first, t0)
    _check_sign(any(sign * h < 0 for h in control.lengths), t0, t1)
    passed = sign * (final - t1) > slack if control.grid.end == "clip" else sign * (last - t1) >= 0
    _check_end(passed, final, t1)
    return sign * (final - t1) >= -slack


def _apart(grid: Grid, t0: float, t1: float) -> Tensor:
    if not grid.t.shape[1]:
        return torch.zeros(len(grid.steps), dtype=torch.bool)
    sign, slack, walks = (1.0 if t1 > t0 else -1.0), _slack(t0, t1), grid.steps > 0
    at = (grid.steps - 1).clamp(min=0)[:, None]
    last, h = grid.t.gather(1, at)[:, 0], grid.h.gather(1, at)[:, 0]
    final = last + h
    wrong = walks & ((grid.t[:, 0] - t0).abs() > slack)
    _check_start(bool(wrong.any()), float(grid.t[wrong.int().argmax(), 0]), t0)
    _check_sign(bool((sign * grid.h < 0).any()), t0, t1)
    passed = walks & (sign * (final - t1) > slack if grid.end == "clip" else sign * (last - t1) >= 0)
    _check_end(bool(passed.any()), float(final[passed.int().argmax()]), t1)
    return walks & (sign * (final - t1) >= -slack)


def _check_start(wrong: bool, first: float, t0: float) -> None:
    if wrong:
        raise BadInput(f"The grid to replay starts at t = {first:.6g}, not at t0 = {t0:.6g}. Replay it from its start.")


def _check_sign(wrong: bool, t0: float, t1: float) -> None:
    if wrong:
        raise BadInput(
            f"The grid to replay runs the other way in time than from t0 = {t0:.6g} to t1 = {t1:.6g}. "
            "Replay the interval that it was made for."
        )


def _check_end(wrong: bool, final: float, t1: float) -> None:
    if wrong:
        raise BadInput(
            f"The grid to replay goes on to t = {final:.6g}, past t1 = {t1:.6g}. Replay the interval it was made for."
        )
