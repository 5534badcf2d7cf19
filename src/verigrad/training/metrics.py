"""What each epoch brought, as lines of JSON and, where it is installed, for TensorBoard."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from verigrad.core.errors import BadInput
from verigrad.training.checkpoint import Epoch


def record(path: Path, epoch: Epoch, **facts: float) -> None:
    """Writes an epoch's line: {"epoch": 3, "train": {"cross_entropy": …}, "validation": …, "robust": …, **facts}.

    Lines of this and of later epochs, which a killed run may have left, give way, and so does half a line. The file is
    replaced as a whole.
    """
    kept = [line for line in _lines(path) if line["epoch"] < epoch.number]
    told = {"epoch": epoch.number, "train": epoch.parts, "validation": epoch.validation, "robust": epoch.robust}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text("".join(f"{json.dumps(line)}\n" for line in [*kept, told | facts]), encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("epoch"), int):
            lines.append(line)
    return lines


class Tracker:
    """Writes epochs for TensorBoard.

    Args:
        folder: where its event files lie.

    Raises:
        BadInput: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as fault:
            raise BadInput(
                "--track needs TensorBoard, which is not installed: pip install 'verigrad[track]'."
            ) from fault
        self._make = SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def record(self, epoch: Epoch, **facts: float) -> None:
        """One epoch; what a killed run wrote of it and of later ones is purged."""
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=epoch.number)
        told = {f"train/{name}": value for name, value in epoch.parts.items()}
        told |= {"validation/clean": epoch.validation, "validation/robust": epoch.robust} | facts
        for name, value in told.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch.number)
        self._writer.flush()

    def close(self) -> None:
        """Nothing more comes."""
        if self._writer is not None:
            self._writer.close()
