"""What a model is, in numbers and words: its hash, its description, and whether it is a classifier at all."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verigrad.core.classifier import left_as_found, predict
from verigrad.core.errors import BadInput
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

    Keys: "class" (dotted), "parameters" (int), "solvers" (list of {"block", "method", "control", "gradient"}, texts).
    """
    names = {part: name for name, part in model.named_modules()}
    solvers = [
        {
            "block": names[block],
            "method": block.solver.method.name,
            "control": _short(block.solver.control),
            "gradient": _short(block.solver.gradient),
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
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise BadInput(f"The weight {name!r} of the model holds NaN or infinity. Give weights that are finite.")
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and bool(torch.isnan(buffer).any()):
            raise BadInput(f"The buffer {name!r} of the model holds NaN. Give weights that are finite.")


def check_classifier(model: nn.Module, x: Tensor, y: Tensor, *, batch: int = 100) -> None:
    """Refuses what is no classifier of these images, by one pass over the first `batch` of them.

    Batch norm in training mode is refused, although evaluation would switch it to eval mode: a model handed over in
    training mode is likely not the one that its robustness is claimed for. Dropout in training mode is let through, and
    evaluated in eval mode. The command line puts what it loads into eval mode itself.

    Args:
        model: from images in [0, 1] to logits.
        x: (N, C, H, W) images; y: (N,) labels.

    Raises:
        BadInput: batch norm in training mode; weights that are not finite; the model cannot take the images, in whole
            batches and one at a time, or changes them in place; gives no tensor of shape (B, K) with K at least 2, has
            fewer classes than there are labels, gives logits that are not finite, or probabilities in place of logits;
            or fails where it is differentiated.
    """
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and part.training:
            raise BadInput(
                f"The batch norm {name!r} of the model is in training mode, so a prediction would depend on its "
                "batch-mates. Call .eval() on the model first."
            )
    check_weights(model)
    _check_logits(_logits(model, x, batch), len(x), top=int(y.max()))
    _logits(model, x[:1], 1)
    _check_differentiated(model, x[:1])


def _logits(model: nn.Module, x: Tensor, batch: int) -> Tensor:
    shown = x.clone()
    try:
        logits: Any = predict(model, shown, batch=batch)
    except BadInput:
        raise
    except Exception as fault:
        # predict joins batches with torch.cat, which refuses a model that gives no tensor.
        shape = tuple(x[:batch].shape)
        raise BadInput(
            f"The model does not take images of shape {shape} to one tensor of logits: "
            f"{_told(fault)}{_fix(model, batch=len(x[:batch]))}"
        ) from fault
    if not torch.equal(shown, x):
        raise BadInput("The model changes its images in place. Let it work on a copy: x = x.clone().")
    return logits


def _check_differentiated(model: nn.Module, x: Tensor) -> None:
    """A model that cuts the graph is fine: audits are made for such."""
    try:
        with left_as_found(model), torch.enable_grad():
            at = x.clone().requires_grad_(True)
            logits = model(at)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), at, allow_unused=True)
    except Exception as fault:
        raise BadInput(
            f"The model fails where it is differentiated by its images: {_told(fault)} Change no tensor in place, or "
            "detach what has no derivative."
        ) from fault
    if logits.is_inference():
        raise BadInput(
            "The model computes under torch.inference_mode, which nothing can be taken back from. Leave it out."
        )


def _fix(model: nn.Module, *, batch: int) -> str:
    if batch == 1:
        return " Attacks drop the images that they have broken, so it must take batches of every size."
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if kinds - {torch.float32}:
        return " Images are float32: call .float() on the model, or convert them inside it."
    return ""


def _check_logits(logits: Tensor, count: int, *, top: int) -> None:
    if logits.dim() != 2 or len(logits) != count:
        raise BadInput(f"The model must give logits of shape ({count}, K). Got {tuple(logits.shape)}.")
    classes = logits.shape[1]
    if classes < 2:
        raise BadInput(
            f"The model must give logits of shape ({count}, K) with K at least 2, one for each class. Got "
            f"{tuple(logits.shape)}. Of one logit z make two: torch.cat([-z, z], 1)."
        )
    if top >= classes:
        raise BadInput(
            f"The model has {classes} classes, but the labels go up to {top}. Labels must be in [0, {classes})."
        )
    finite = torch.isfinite(logits).all(1)
    if not bool(finite.all()):
        where = int((~finite).nonzero()[0])
        raise BadInput(
            f"The logits of the model are not finite on image {where}. It cannot be audited on these images."
        )
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        raise BadInput(
            "The model gives probabilities (rows that are not negative and sum to one). Return the logits: leave out "
            "the softmax at its end, or return log-probabilities."
        )


def _told(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    text = f"{type(fault).__name__}: {lines[0] if lines else 'no message'}"
    return text if text.endswith(".") else f"{text}."
