"""What a model must be to be judged at all. `inspecting.check_classifier` refuses in the words of these facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from verigrad.core.classifier import device_of, left_as_found, predict
from verigrad.core.errors import BadInput
from verigrad.models.fact import Fact, fact, fatal
from verigrad.models.faults import told

NEEDED = ("eval mode", "finite weights", "dtype and device", "takes images", "classes", "logits", "differentiable")


def needed(model: nn.Module, x: Tensor, y: Tensor, *, batch: int = 100) -> Iterator[Fact]:
    """The facts that can be fatal, each measured when it is asked for. Each rests on those before it."""
    yield eval_mode(model, x[:batch])
    yield finite_weights(model)
    yield dtype_and_device(model)
    taken, logits = takes_images(model, x, batch)
    yield taken
    if taken.fatal:
        return
    yield classes(logits, y)
    yield gives_logits(logits)
    yield differentiable(model, x[:1])


def eval_mode(model: nn.Module, x: Tensor) -> Fact:
    """Whether no layer is in training mode, nor after a forward pass of x that begins in eval mode.

    Evaluation switches those that are, but batch norm there is likely a slip.
    """
    training = [(name, part) for name, part in model.named_modules() if part.training]
    for name, part in training:
        if isinstance(part, _BatchNorm):
            return fatal(
                "eval mode",
                "training",
                f"The batch norm {name!r} of the model is in training mode, so a prediction would depend on its "
                "batch-mates. Call .eval() on the model first.",
            )
    if training:
        name, part = training[-1]
        detail = f"{len(training)} parts are in training mode, such as {name!r} ({type(part).__name__})."
        return fact("eval mode", False, "training", f"{detail} They are evaluated in eval mode.")
    if switched := _switched(model, x):
        name, kind = switched[-1]
        detail = f"The forward pass puts {len(switched)} of its parts into training mode, such as {name!r} ({kind})."
        return fact("eval mode", False, "switched", f"{detail} So .eval() does not hold in it.")
    return fact("eval mode", True, "eval", "No part is in training mode, before a forward pass or after it.")


def _switched(model: nn.Module, x: Tensor) -> list[tuple[str, str]]:
    """The names and kinds of the parts that are in training mode after a forward pass, be it one that fails."""
    if any(map(_without_numbers, model.parameters())):  # `finite_weights` tells of it
        return []
    device = device_of(model)
    with left_as_found(model), torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        with suppress(Exception, SystemExit):  # `takes_images` tells of it
            model(x.to(device).clone())
        return [(name, type(part).__name__) for name, part in model.named_modules() if part.training]


def finite_weights(model: nn.Module) -> Fact:
    """Each weight is there and finite, and no buffer NaN (an infinite buffer can be a mask)."""
    for name, weight in model.named_parameters():
        if _without_numbers(weight):
            detail = f"The weight {name!r} of the model has no numbers yet. Call a lazy layer once where it is made."
            return fatal("finite weights", name, detail)
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            detail = f"The weight {name!r} of the model holds NaN or infinity. Give weights that are finite."
            return fatal("finite weights", name, detail)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point() and bool(torch.isnan(buffer).any()):
            detail = f"The buffer {name!r} of the model holds NaN. Give weights that are finite."
            return fatal("finite weights", name, detail)
    count = sum(weight.numel() for weight in model.parameters())
    return fact("finite weights", True, count, f"{count} weights.")


def _without_numbers(weight: Tensor) -> bool:
    return is_lazy(weight) or weight.is_meta


def dtype_and_device(model: nn.Module) -> Fact:
    """Whether all weights are float32 and in one place."""
    kinds = sorted({str(w.dtype).removeprefix("torch.") for w in model.parameters() if w.is_floating_point()})
    places = sorted({str(weight.device) for weight in model.parameters()})
    value = f"{', '.join(kinds) or 'no weights'} on {', '.join(places) or device_of(model)}"
    if len(places) > 1:
        return fact("dtype and device", False, value, "Weights lie on several devices; images go to the first.")
    if set(kinds) - {"float32"}:
        detail = "Images are float32, and the model must convert them itself."
        return fact("dtype and device", False, value, detail)
    return fact("dtype and device", True, value, "As the images.")


def takes_images(model: nn.Module, x: Tensor, batch: int) -> tuple[Fact, Tensor]:
    """Whether it takes the images in batches and one at a time, and leaves them alone; and the logits of all."""
    name = "takes images"
    logits = torch.empty(0)
    for part, size in ((x, batch), (x[:1], 1)):
        shown, shape = part.clone(), tuple(part[:size].shape)
        try:
            found = predict(model, shown, batch=size)
        except BadInput as fault:
            return fatal(name, str(shape), str(fault)), logits
        except (Exception, SystemExit) as fault:
            # predict joins batches with torch.cat, which refuses a model that gives no tensor.
            return fatal(
                name,
                str(shape),
                f"The model does not take images of shape {shape} to one tensor of logits: "
                f"{told(fault)}{_fix(model, batch=shape[0])}",
            ), logits
        if not torch.equal(shown, part):
            return fatal(
                name, str(shape), "The model changes its images in place. Let it work on a copy: x = x.clone()."
            ), logits
        logits = found if part is x else logits
    return fact(name, True, str(tuple(x[:batch].shape)), "In batches and one at a time."), logits


def classes(logits: Tensor, y: Tensor) -> Fact:
    """Whether there is one finite logit for each class, and a class for each label."""
    count, shape, top = len(y), tuple(logits.shape), int(y.max())
    value = f"shape {shape}"
    if not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        return fatal(
            "classes",
            kind,
            f"The logits of the model must be floating point. Got {kind}. Return what it has before it rounds or "
            "decides, as .float().",
        )
    if len(shape) != 2 or shape[0] != count:
        return fatal("classes", value, f"The model must give logits of shape ({count}, K). Got {shape}.")
    if shape[1] < 2:
        return fatal(
            "classes",
            value,
            f"The model must give logits of shape ({count}, K) with K at least 2, one for each class. Got {shape}. "
            "Of one logit z make two: torch.cat([-z, z], 1).",
        )
    if top >= shape[1]:
        return fatal(
            "classes",
            shape[1],
            f"The model has {shape[1]} classes, but the labels go up to {top}. Labels must be in [0, {shape[1]}).",
        )
    finite = torch.isfinite(logits).all(1)
    if not bool(finite.all()):
        where = int((~finite).nonzero()[0])
        return fatal(
            "classes",
            shape[1],
            f"The logits of the model are not finite on image {where}. It cannot be audited on these images.",
        )
    return fact("classes", True, shape[1], f"{shape[1]} classes; labels go up to {top}.")


def gives_logits(logits: Tensor) -> Fact:
    """Whether the rows are logits. Log-probabilities do as well: the softmax and the margins of both are the same.

    It cannot be told where logits could look as these do, and probabilities that are cut, scaled or shifted do.
    """
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all()):
        return fatal(
            "logits",
            "probabilities",
            "The model gives probabilities (rows that are not negative and sum to one). Return the logits: leave out "
            "the softmax at its end, or return log-probabilities.",
        )
    if bool((logits.double().logsumexp(1).abs() < 1e-3).all()):
        detail = "The exponentials of each row sum to one. Losses and margins are those of the logits."
        return fact("logits", False, "log-probabilities", detail)
    if likeness := _like_probabilities(logits.double()):
        detail = f"Perhaps probabilities: {likeness}. If so, return what is before the softmax or the sigmoid."
        return fact("logits", None, "perhaps probabilities", detail)
    size = float(logits.abs().max())
    return fact("logits", True, "logits", f"Neither probabilities nor their logarithms; up to {size:.3g} in size.")


def differentiable(model: nn.Module, x: Tensor) -> Fact:
    """Whether it can be called where gradients are recorded. One that cuts the graph is fine: audits are for such."""
    name = "differentiable"
    try:
        with left_as_found(model), torch.enable_grad():
            at = x.to(device_of(model)).clone().requires_grad_(True)
            logits = model(at)
            found = torch.autograd.grad(logits.sum(), at, allow_unused=True)[0] if logits.requires_grad else None
    except (Exception, SystemExit) as fault:  # an exit code of theirs would be taken for a verdict's
        return fatal(
            name,
            "fails",
            f"The model fails where it is differentiated by its images: {told(fault)} Change no tensor in place, or "
            "detach what has no derivative.",
        )
    if logits.is_inference():
        return fatal(
            name,
            "inference mode",
            "The model computes under torch.inference_mode, which nothing can be taken back from. Leave it out.",
        )
    if found is None:
        return fact(name, False, "cut", "The logits do not depend on the images as far as autograd knows.")
    return fact(name, True, "yes", "Autograd goes from the logits to the images.")


def _like_probabilities(logits: Tensor) -> str:
    """What rows (N, K) have in common with probabilities; "" for nothing. Logits around 0, as [-z, z], have not."""
    if bool(((logits >= 0) & (logits <= 1)).all()):
        return "all values lie in [0, 1]"
    sums = logits.sum(1)
    middle, same = float(sums.mean()), float((sums - sums.mean()).abs().max())
    if len(sums) > 1 and abs(middle) > 1e-3 * float(logits.abs().max()) and same < 1e-3 * abs(middle):
        return f"every row has the same sum ({middle:.3g})"
    return ""


def _fix(model: nn.Module, *, batch: int) -> str:
    if batch == 1:
        return " Attacks drop the images that they have broken, so it must take batches of every size."
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    if kinds - {torch.float32}:
        return " Images are float32: call .float() on the model, or convert them inside it."
    return ""
