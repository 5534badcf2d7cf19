"""The record of an adaptive solve while it runs, drawn up as a `Grid` at its end."""

import torch
from torch import Tensor

from verigrad.solvers.solution import End, Grid, Stats


class Record:
    """Every attempted step of every row. One row is a sample, or the whole batch where it shares its steps."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._attempts: list[Tensor] = []

    def attempt(self, rows: Tensor, t: Tensor, h: Tensor, error: Tensor, accepted: Tensor) -> None:
        """One attempt of each of the given rows (n,): start, length, error ratio, and whether it was accepted."""
        tried = torch.ones_like(t)
        values = torch.stack([t.detach(), h.detach(), error.double(), accepted.double(), tried]).reshape(5, -1)
        if len(rows) < self._rows:
            values = torch.zeros(5, self._rows, dtype=torch.float64).index_copy_(1, rows, values)
        self._attempts.append(values)

    def grid(self, *, end: End, carries: bool, shared: bool, sign: float, method: str) -> tuple[Grid, Tensor]:
        """The accepted steps, and the refused attempts (rows,); `sign` turns the time back if it ran backwards."""
        history = torch.stack(self._attempts, -1) if self._attempts else torch.zeros(5, self._rows, 0).double()
        t, h, error, _, tried = history  # each (rows, attempts)
        accepted = history[3] > 0
        refused = torch.cumsum((tried > 0) & ~accepted, 1)
        steps = accepted.sum(1)
        row, attempt = accepted.nonzero(as_tuple=True)
        place = torch.cumsum(accepted, 1)[row, attempt] - 1
        width = int(steps.max()) if self._rows else 0

        def table(values: Tensor) -> Tensor:
            return values.new_zeros(self._rows, width).index_put_((row, place), values[row, attempt])

        before = table(refused)
        before[:, 1:] -= before[:, :-1].clone()
        filled = torch.arange(width) < steps[:, None]
        grid = Grid(
            t=sign * table(t),
            h=sign * table(h),
            error=table(error),
            rejections=before * filled,
            steps=steps,
            end=end,
            carries=carries,
            shared=shared,
            method=method,
        )
        return grid, (tried > 0).sum(1) - steps


def stats(grid: Grid, rejected: Tensor, batch: int, *, first: int, each: int) -> Stats:
    """What each sample cost, at `first` evaluations to begin with and `each` for an attempt."""
    accepted, rejected = (v.expand(batch) if grid.shared else v for v in (grid.steps, rejected))
    return Stats(evaluations=first + each * (accepted + rejected), accepted=accepted, rejected=rejected)
