"""What makes two trainings the same."""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.classifier import device_of
from verigrad.models.inspecting import describe_model, weights_hash
from verigrad.training.distributed import ALONE, Processes
from verigrad.training.recipe import Recipe


def training_identity(
    model: nn.Module, x: Tensor, y: Tensor, method: Any, recipe: Recipe, processes: Processes = ALONE
) -> dict[str, str]:
    """What must be the same for a run to be resumed: each entry is text."""
    data = hashlib.sha256(str(tuple(x.shape)).encode())
    for part in (x, y):
        data.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "model": json.dumps(describe_model(model), sort_keys=True),
        "initial weights": weights_hash(model),
        "data": data.hexdigest(),
        "method": catalog.describe(method),
        "recipe": repr(recipe),
        "torch": str(torch.__version__),
        "machine": f"{platform.machine()} {device_of(model).type}",
        "processes": str(processes.count),
    }
