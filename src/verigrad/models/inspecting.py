"""What a model is, in numbers and words: its hash, its description, and whether it is a classifier at all."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.fact import Fact
from verigrad.models.needed import finite_weights, needed
from verigrad.models.twin import ode_blocks


def weights_hash(model: nn.Module) -> str:
    """SHA-256, in hex, over the name, dtype, shape and bytes of every weight and buffer, in the order of their names.

    It is the same on every device and in every process. How ODE blocks are solved is not in it: that is in
    `describe_model`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\x1f{kind}\x1f{tuple(tensor.shape)}\x1f".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe_model(model: nn.Module) -> dict[str, Any]:
    """What stands in reports, as plain JSON: class, number of parameters, and the solver of each ODE block.

    Keys: "class" (dotted), "parameters" (int), "solvers" (list of {"block", "method", "control", "gradient", "t0",
    "t1"}: texts, and the times between which the block is solved).
    """
    names = {part: name for name, part in model.named_modules()}
    solvers = [
        {
            "block": names[block],
            "method": block.solver.method.name,
            "control": _short(block.solver.control),
            "gradient": _short(block.solver.gradient),
            "t0": block.solver.t0,
            "t1": block.solver.t1,
        }
        for block in ode_blocks(model)
    ]
    kind = type(model)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "solvers": solvers,
    }


def _short(choice: object) -> str:
    text = repr(choice)
    return text if len(text) <= 400 else f"{text[:400]}…"


def check_weights(model: nn.Module) -> None:
    """Refuses weights that are not finite, and buffers with NaN (an infinite buffer can be a mask).

    Raises:
        BadInput: naming the first of them.
    """
    _refuse(finite_weights(model))


def check_classifier(model: nn.Module, x: Tensor, y: Tensor, *, batch: int = 100) -> None:
    """Refuses what is no classifier of these images: the first of the facts in `needed.py` that is fatal.

    Batch norm in training mode is refused, although evaluation would switch it to eval mode: a model handed over in
    training mode is likely not the one that its robustness is claimed for. Dropout in training mode is let through, and
    evaluated in eval mode. The command line puts what it loads into eval mode itself.

    Args:
        model: from images in [0, 1] to logits.
        x: (N, C, H, W) images; y: (N,) labels.
        batch: images shown together.

    Raises:
        BadInput: batch norm in training mode; weights that are not finite; the model cannot take the images, in whole
            batches and one at a time, or changes them in place; gives no tensor of shape (B, K) with K at least 2, has
            fewer classes than there are labels, gives logits that are not finite, or probabilities in place of logits;
            or fails where it is differentiated.
    """
    for fact in needed(model, x, y, batch=batch):
        _refuse(fact)


def _refuse(fact: Fact) -> None:
    if fact.fatal:
        raise BadInput(fact.detail)
