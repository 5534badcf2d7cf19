"""A training run on disk: one file, replaced as a whole, from which the run goes on bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.training import state_file
from verigrad.training.distributed import ALONE, Processes
from verigrad.training.running import Running

FORMAT = 2


class Epoch(NamedTuple):
    """One epoch that is done.

    number: from 1 up. parts: means of the method's parts. validation: accuracy on the samples held out, if any are.
    robust: accuracy of some of them, or else of some trained on, under a quick attack, if one was asked for.
    """

    number: int
    parts: dict[str, float]
    validation: float | None
    robust: float | None = None


@dataclass(kw_only=True)
class Position:
    """How far a run is.

    steps: batches done. history: epochs done. sums: of the parts in the present epoch, weighted by samples.
    best_epoch, best: the best on the samples held out, by `watching.is_best`, and its weights and buffers.
    """

    steps: int = 0
    history: list[Epoch] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The file of one training run: weights, optimiser, mean weights, the position inside the epoch, each process's
    memory and buffers, and the best weights. Random draws need no state: they are functions of the position.

    Args:
        path: where it is, or will be. `PATH.previous` is the state before it.
        identity: what the run is, from `identity.training_identity`, before its first step.
        processes: who takes part. Process 0 reads and writes.
    """

    def __init__(self, path: Path, identity: dict[str, str], processes: Processes = ALONE) -> None:
        self.path = path
        self.identity = identity
        self.processes = processes

    def resume(self, state: Running) -> Position:
        """Puts a run where the file says; without a file it begins.

        Raises:
            BadInput: the file is damaged, naming the one before it if that is whole; or it is of another run, naming
                the first difference.
        """
        found: state_file.Saved | str | None = None
        if self.processes.rank == 0 and self.path.exists():
            try:
                found = self._read()
            except BadInput as fault:
                found = str(fault)
        found = self.processes.agreed(found)
        if isinstance(found, str):
            raise BadInput(found)
        return Position() if found is None else self._restored(state, found)

    def save(self, state: Running, position: Position) -> None:
        """Replaces the file by the present state. All processes call it."""
        own = {"memory": state.memory}
        if self.processes.count > 1:
            own["buffers"] = dict(state.module.named_buffers())
            own = {kind: {name: t.detach().cpu() for name, t in table.items()} for kind, table in own.items()}
        tables: dict[str, Mapping[str, Tensor]] = {}
        for rank, share in enumerate(self.processes.gathered((own, position.sums))):
            tables |= {f"{kind}/{rank}": table for kind, table in share[0].items()} | {f"sums/{rank}": share[1]}
        if self.processes.rank:
            return
        optimiser, plain = _flat(state.optimiser.state_dict()["state"])
        tables |= {"model": state.module.state_dict(), "best": position.best, "optimiser": optimiser}
        if state.mean is not None:
            tables["mean"] = state.mean.means
        facts = {
            "format": FORMAT,
            "identity": self.identity,
            "steps": position.steps,
            "history": [epoch._asdict() for epoch in position.history],
            "best epoch": position.best_epoch,
            "optimiser": plain,
            "mean updates": state.mean.updates if state.mean is not None else 0,
        }
        tensors = {f"{table}/{name}": tensor for table, part in tables.items() for name, tensor in part.items()}
        state_file.write(self.path, tensors, facts)

    def finish(self) -> None:
        """The run is complete: the state before the last is not needed any more."""
        if self.processes.rank == 0:
            state_file.previous(self.path).unlink(missing_ok=True)

    def _restored(self, state: Running, saved: state_file.Saved) -> Position:
        facts, rank, device = saved.facts, self.processes.rank, next(state.module.parameters()).device
        state.module.load_state_dict({**_table(saved, "model"), **_table(saved, f"buffers/{rank}")})
        whole = state.optimiser.state_dict()
        whole["state"] = _nested(_table(saved, "optimiser"), facts["optimiser"])
        state.optimiser.load_state_dict(whole)
        if state.mean is not None:
            state.mean.load(_table(saved, "mean"), facts["mean updates"])
        memory = _table(saved, f"memory/{rank}")
        state.memory.update({name: tensor.to(device) for name, tensor in memory.items()})
        return Position(
            steps=facts["steps"],
            history=[Epoch(**epoch) for epoch in facts["history"]],
            sums={name: tensor.to(device) for name, tensor in _table(saved, f"sums/{rank}").items()},
            best_epoch=facts["best epoch"],
            best=_table(saved, "best"),
        )

    def _read(self) -> state_file.Saved:
        try:
            saved = state_file.read(self.path)
        except state_file.Unreadable as fault:
            raise BadInput(f"{self.path} is no whole training checkpoint. {self._instead()}") from fault
        if saved.facts.get("format") != FORMAT:
            raise BadInput(f"{self.path} is no training checkpoint of format {FORMAT}. Remove it to begin anew.")
        for key, value in self.identity.items():
            if (before := saved.facts["identity"].get(key)) != value:
                raise BadInput(
                    f"{self.path} is of another training: its {key!r} is {_short(before)}, "
                    f"now it is {_short(value)}. Choose another path, or remove the file."
                )
        return saved

    def _instead(self) -> str:
        """What to do about a damaged file."""
        before = state_file.previous(self.path)
        try:
            steps = state_file.read(before).facts["steps"]
        except (state_file.Unreadable, KeyError):
            return "Remove it to begin anew."
        return f"The last good one is {before}, after step {steps}: mv {before} {self.path} goes on from there."


def _table(saved: state_file.Saved, name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {key.removeprefix(start): tensor for key, tensor in saved.tensors.items() if key.startswith(start)}


def _flat(state: Mapping[Any, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """An optimiser's state as named tensors, and what is none of them as JSON."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for weight, values in state.items():
        plain[str(weight)] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        tensors |= {f"{weight}/{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    return tensors, plain


def _nested(tensors: Mapping[str, Tensor], plain: Mapping[str, Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {int(weight): dict(values) for weight, values in plain.items()}
    for name, tensor in tensors.items():
        weight, key = name.split("/", 1)
        state[int(weight)][key] = tensor
    return state


def _short(text: str | None) -> str:
    return "missing" if text is None else text if len(text) <= 120 else f"{text[:120]}…"
