"""A training run on disk: one file, replaced as a whole after each epoch, from which the run goes on bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.models.inspecting import describe_model, weights_hash
from verigrad.training.recipe import Recipe

FORMAT = 1


class Epoch(NamedTuple):
    """number: from 1 up. parts: means of the objective's parts. validation: accuracy, if any is held out."""

    number: int
    parts: dict[str, float]
    validation: float | None


def training_identity(model: nn.Module, x: Tensor, y: Tensor, objective: Any, recipe: Recipe) -> dict[str, str]:
    """What must be the same for a run to be resumed: each entry is text."""
    data = hashlib.sha256(str(tuple(x.shape)).encode())
    for part in (x, y):
        data.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "model": json.dumps(describe_model(model), sort_keys=True),
        "initial weights": weights_hash(model),
        "data": data.hexdigest(),
        "objective": catalog.describe(objective),
        "recipe": repr(recipe),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()} {x.device.type}",
    }


class Checkpoint:
    """The file of one training run.

    It is a PyTorch file of tensors, numbers and texts, read with `weights_only=True`; a draft is written beside it and
    renamed, so that the file is always whole.

    Args:
        path: where it is, or will be.
        identity: what the run is, from `training_identity`, before its first step.
    """

    def __init__(self, path: Path, identity: dict[str, str]) -> None:
        self.path = path
        self.identity = identity

    def resume(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> list[Epoch]:
        """Puts model and optimiser where the file says and gives the epochs that are done; none without a file.

        Raises:
            BadInput: the file is damaged, or of another run, naming the first difference.
        """
        if not self.path.exists():
            return []
        saved = self._read()
        for key, value in self.identity.items():
            if saved["identity"].get(key) != value:
                raise BadInput(
                    f"{self.path} is of another training: its {key!r} is {_short(saved['identity'].get(key))}, "
                    f"now it is {_short(value)}. Choose another path, or remove the file."
                )
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        return [Epoch(number, parts, validation) for number, parts, validation in json.loads(saved["history"])]

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, history: list[Epoch]) -> None:
        """Replaces the file by the present state."""
        state = {
            "format": FORMAT,
            "identity": self.identity,
            "model": dict(model.state_dict()),
            "optimiser": optimiser.state_dict(),
            "history": json.dumps(history),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            torch.save(state, draft)
            os.replace(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as fault:
            raise BadInput(f"{self.path} is no whole training checkpoint. Remove it to begin anew.") from fault
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise BadInput(f"{self.path} is no training checkpoint of format {FORMAT}. Remove it to begin anew.")
        return saved


def _short(text: str | None) -> str:
    return "missing" if text is None else text if len(text) <= 120 else f"{text[:120]}…"
