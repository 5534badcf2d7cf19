"""How a model behaves on its images: the same twice, in any company, with a gradient, and in the range it expects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from verigrad.core.classifier import device_of, left_as_found, predict
from verigrad.core.scores import margin
from verigrad.models.fact import Fact, fact
from verigrad.models.faults import told

BEHAVIOUR = ("deterministic", "batch order", "batch-mates", "gradient exists", "input range")

# Logits that differ by less, of the largest of them, are the same: float32 sums in another order differ by 1e-6.
SAME = 1e-4
# How many images are looked at for repeats and company; for gradients; and under other scales.
SHOWN, DIFFERENTIATED, SCALED = 32, 10, 200
# A seed under which no batch of 3 to 32 has every image at its place or at the mirror image of it.
SHUFFLE = 0

# Mean and std of the training images, as their users publish them; the first two are conventions.
SCALES = {
    "grey levels in [0, 255]": ((0.0,), (1 / 255,)),
    "values in [-1, 1]": ((0.5,), (0.5,)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's mean and std": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "MNIST's mean and std": ((0.1307,), (0.3081,)),
}


def behaviour(model: nn.Module, x: Tensor, y: Tensor, *, batch: int) -> Iterator[Fact]:
    """The facts of `BEHAVIOUR`, of a model that is all it needs to be. Draws from the global generator if it does."""
    shown = x[: min(batch, SHOWN)]
    steady = _measured("deterministic", lambda: deterministic(model, shown))
    yield steady
    for name, company in (("batch order", batch_order), ("batch-mates", batch_mates)):
        if steady.holds is False:
            yield fact(name, None, None, "Cannot be told, since the model is not deterministic.")
        elif len(shown) < 2:
            yield fact(name, None, None, "Cannot be told of one image in a batch.")
        else:
            yield _measured(name, partial(company, model, shown))
    count = min(batch, DIFFERENTIATED)
    yield _measured("gradient exists", lambda: gradient_exists(model, x[:count], y[:count]))
    yield _measured("input range", lambda: input_range(model, x, y, batch=batch))


def _measured(name: str, measure: Callable[[], Fact]) -> Fact:
    """What `measure` finds; of a model that raises, which it may do in a batch of another size, that it cannot."""
    try:
        return measure()
    except (Exception, SystemExit) as fault:  # an exit code of theirs would be taken for a verdict's
        return fact(name, None, None, f"Cannot be told, since the model raised {told(fault)}")


def deterministic(model: nn.Module, x: Tensor) -> Fact:
    """Whether the same batch gives the same logits twice. Value: the largest change, of the largest logit."""
    change = _change(predict(model, x, batch=len(x)), predict(model, x, batch=len(x)))
    return fact("deterministic", change <= SAME, change, f"Shown again, the logits of {len(x)} images {_so(change)}.")


def batch_order(model: nn.Module, x: Tensor) -> Fact:
    """Whether a batch in another order gives its logits in that order: turned round, and as a fixed seed shuffles it.

    Turned round alone would not tell a place from its mirror image. Value: the larger change, as for `deterministic`.
    """
    logits = predict(model, x, batch=len(x))
    orders = (torch.arange(len(x)).flip(0), shuffled(len(x)))
    change = max(_change(logits[order], predict(model, x[order], batch=len(x))) for order in orders)
    detail = f"With the batch of {len(x)} turned round and shuffled, they {_so(change)}."
    return fact("batch order", change <= SAME, change, detail)


def shuffled(count: int) -> Tensor:
    """0 to count - 1 in the order that `SHUFFLE` gives."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(SHUFFLE))


def batch_mates(model: nn.Module, x: Tensor) -> Fact:
    """Whether an image alone has the logits that it has in the batch. Value: as for `deterministic`."""
    together, alone = predict(model, x, batch=len(x)), predict(model, x, batch=1)
    change, flips = _change(together, alone), int((together.argmax(1) != alone.argmax(1)).sum())
    detail = f"Each alone against all {len(x)} in a batch, they {_so(change)}; {flips} predictions flip."
    return fact("batch-mates", change <= SAME, change, detail)


def gradient_exists(model: nn.Module, x: Tensor, y: Tensor) -> Fact:
    """Whether the margin of every image has a gradient, finite and not all zero. Value: the share that has."""
    name, device = "gradient exists", device_of(model)
    with left_as_found(model), torch.enable_grad():
        at = x.to(device).clone().requires_grad_(True)
        value = margin(model(at), y.to(device)).sum()
        found = torch.autograd.grad(value, at, allow_unused=True)[0] if value.requires_grad else None
    if found is None:
        return fact(name, False, 0.0, "The logits do not depend on the images as far as autograd knows.")
    rows = found.flatten(1)
    finite, zero = torch.isfinite(rows).all(1), (rows == 0).all(1)
    good = int((finite & ~zero).sum())
    detail = f"{good} of {len(x)} images have one; it is all zero at {int(zero.sum())}, not finite at "
    return fact(name, good == len(x), good / len(x), f"{detail}{int((~finite).sum())}.")


def input_range(model: nn.Module, x: Tensor, y: Tensor, *, batch: int) -> Fact:
    """Whether images in [0, 1] are what the model expects. Value: its accuracy on them.

    It does not hold where they leave [0, 1], or where a usual scale gives an accuracy whose 95 % interval lies above
    that of the images as they are. It cannot be told of an accuracy that could be that of the most frequent label.
    """
    name, low, high = "input range", float(x.min()), float(x.max())
    accuracy = _right(model, x, y, batch) / len(x)
    if low < 0 or high > 1:
        detail = f"The images reach from {low:.3g} to {high:.3g}: give them in [0, 1], and normalise in the model."
        return fact(name, False, accuracy, detail)
    part, labels = x[:SCALED], y[:SCALED]
    given, (best, better) = _right(model, part, labels, batch), _best_scale(model, part, labels, batch)
    if best and _interval(better, len(part))[0] > _interval(given, len(part))[1]:
        mean, std = (",".join(f"{number:.6g}" for number in numbers) for numbers in SCALES[best])
        detail = f"Accuracy is {given / len(part):.1%} as given and {better / len(part):.1%} with {best}"
        return fact(name, False, accuracy, f"{detail}: perhaps --normalise {mean}/{std}.")
    chance = int(y.bincount().max()) / len(y)
    if _interval(round(accuracy * len(x)), len(x))[0] <= chance:
        detail = f"The accuracy of {accuracy:.1%} on {len(x)} images is not above chance ({chance:.1%})"
        return fact(name, None, accuracy, f"{detail}, and no usual scale mends it.")
    return fact(name, True, accuracy, f"The accuracy on {len(x)} images in [{low:.3g}, {high:.3g}] is {accuracy:.1%}.")


def _best_scale(model: nn.Module, x: Tensor, y: Tensor, batch: int) -> tuple[str, int]:
    """The scale under which most images are right, and how many; "" where none fits the channels."""
    found = {"": -1}
    for name, numbers in SCALES.items():
        mean, std = (x.new_tensor(number).reshape(1, -1, 1, 1) for number in numbers)
        if mean.shape[1] in (1, x.shape[1]):
            with suppress(Exception, SystemExit):  # one that the model refuses is none that it expects
                found[name] = _right(model, (x - mean) / std, y, batch)
    best = max(found, key=lambda name: found[name])
    return best, found[best]


def _right(model: nn.Module, x: Tensor, y: Tensor, batch: int) -> int:
    return int((predict(model, x, batch=batch).argmax(1) == y).sum())


def _interval(right: int, count: int) -> tuple[float, float]:
    found = binomtest(right, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _change(one: Tensor, other: Tensor) -> float:
    size = one.double().abs().max().clamp(min=1e-300)
    return float(((one.double() - other.double()).abs().max() / size).nan_to_num(nan=torch.inf))


def _so(change: float) -> str:
    return f"change by {change:.1e} of the largest" if change else "are the same"
