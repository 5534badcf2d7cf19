"""All that decides the numbers of an audit or of a run of attacks: with the same identity they are the same."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.auditing.claim import Budget, Claim
from verigrad.auditing.foreign import NOT_FOREIGN, Foreign
from verigrad.core.classifier import device_of, left_as_found
from verigrad.core.scores import margin
from verigrad.core.seeds import derive_seed
from verigrad.core.threat import Threat
from verigrad.data.images import Images, data_hash
from verigrad.evaluation.look import fixed_draws
from verigrad.evaluation.subject import Subject
from verigrad.models.inspecting import describe_model, weights_hash
from verigrad.models.twin import ode_blocks


@dataclass(frozen=True, kw_only=True)
class Names:
    """How model and data are called in the ledger, so that `verigrad verify` finds them again."""

    title: str = "a model given in Python"
    model: str = ""
    weights: str = ""
    data: str = ""


def identify(
    model: nn.Module,
    images: Images,
    threat: Threat,
    *,
    claim: Claim,
    budget: Budget,
    batch: int,
    seed: int,
    names: Names,
    foreign: Foreign = NOT_FOREIGN,
) -> dict[str, Any]:
    """What the ledger of an audit is opened with, as JSON."""
    return {
        **_looked_at(model, images, threat, batch=batch, seed=seed, names=names),
        "solver": [*(repr(block.solver) for block in ode_blocks(model)), *foreign.texts()],
        "claim_attack": catalog.describe(claim.attack),
        "claim_accuracy": claim.accuracy,
        "budget": asdict(budget),
        "versions": {"verigrad": version("verigrad"), "torch": torch.__version__, "python": platform.python_version()},
    }


def identify_run(command: str, subject: Subject, images: Images, names: Names) -> dict[str, Any]:
    """What the ledger of a command is opened with that may try more on it: its attacks are no part of the identity."""
    model = subject.model
    looked_at = _looked_at(model, images, subject.threat, batch=subject.batch, seed=subject.seed, names=names)
    return {"command": command, "solvers": describe_model(model)["solvers"], **looked_at}


def _looked_at(
    model: nn.Module, images: Images, threat: Threat, *, batch: int, seed: int, names: Names
) -> dict[str, Any]:
    return {
        **{key: value for key, value in asdict(names).items() if key != "title"},
        "weights_sha256": weights_hash(model),
        "behaviour_sha256": behaviour_hash(model, images, batch),
        "data_sha256": data_hash(images),
        "n": len(images.y),
        "threat": str(threat),
        "batch": batch,
        "seed": seed,
        "device": str(device_of(model)),
    }


def behaviour_hash(model: nn.Module, images: Images, batch: int) -> str:
    """A hash of logits and margin gradients on the first images, to three digits: code is in no hash of weights.

    Args:
        batch: at most this many images are shown, and at most ten.
    """
    device = device_of(model)
    x, y = images.x[: min(batch, 10)].to(device), images.y[: min(batch, 10)].to(device)
    with left_as_found(model), fixed_draws(derive_seed("behaviour"), device):
        logits, gradient = logits_and_gradient(model, x, y)
    digest = hashlib.sha256()
    for part in (logits, gradient):
        size = part.abs().max().clamp(min=torch.finfo(part.dtype).tiny)
        digest.update((np.round((part / size).double().nan_to_num(nan=9.0).cpu().numpy(), 3) + 0.0).tobytes())
    return digest.hexdigest()


def logits_and_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), and the gradient (B, C, H, W) of the summed margins; zero where the model cuts the graph."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_(True)
        logits = model(at)
        value = margin(logits, y).sum()
        found = torch.autograd.grad(value, at, allow_unused=True)[0] if value.requires_grad else None
    return logits.detach(), torch.zeros_like(x) if found is None else found
