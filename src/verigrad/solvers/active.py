"""The samples that are still under way, and the end states of those that are not."""

import torch
from torch import Tensor

from verigrad.solvers.solution import Status
from verigrad.solvers.state import State, take


class Active:
    """Keeps a dense chunk: samples that end are put aside, so that the field never sees them again.

    With `shared`, the batch moves as one: rows is [0] and stands for all samples.
    """

    def __init__(self, batch: int, *, shared: bool) -> None:
        self.rows = torch.arange(1 if shared else batch)
        self._batch = batch
        self._shared = shared
        self._put_aside: list[tuple[Tensor, State, Status]] = []

    def split(self, rows: Tensor) -> "Active":
        """A chunk of the given rows (n,) of this one, which still holds them; both put aside in one place."""
        other = Active(self._batch, shared=self._shared)
        other.rows = self.rows[rows]
        other._put_aside = self._put_aside
        return other

    def retire(self, ended: Tensor, y: State, status: Status) -> None:
        """Put aside the states `y` of the rows where the mask `ended` holds; does nothing if it holds nowhere."""
        if not bool(ended.any()):
            return
        if self._shared or bool(ended.all()):
            self._put_aside.append((self.rows, y, status))
        else:
            self._put_aside.append((self.rows[ended], take(y, ended.nonzero()[:, 0]), status))

    def keep(self, going: Tensor) -> Tensor | None:
        """Drop the rows that ended; the index of those that go on, or None if all do."""
        if bool(going.all()):
            return None
        self.rows = self.rows[going.reshape(-1)]
        return going.reshape(-1).nonzero()[:, 0]

    def gather(self) -> tuple[State, Tensor]:
        """All end states in the order of the batch, and the status (B,)."""
        if self._shared or len(self._put_aside) == 1:
            _, y, status = self._put_aside[0]
            return y, torch.full((self._batch,), int(status))
        order = torch.cat([rows for rows, _, _ in self._put_aside]).argsort()
        status = torch.cat([torch.full((len(rows),), int(status)) for rows, _, status in self._put_aside])
        parts = zip(*(y for _, y, _ in self._put_aside), strict=True)
        return take(tuple(torch.cat(pieces) for pieces in parts), order), status[order]
