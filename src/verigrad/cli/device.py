"""`--device`: where a command computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from verigrad.core.errors import BadInput

if TYPE_CHECKING:
    import torch

Device = Annotated[str, typer.Option(help="cpu or cuda, or cuda:1 and so on; by default a GPU where there is one.")]


def chosen_device(wanted: str, *, local: int = 0) -> torch.device:
    """The device that `--device` names.

    Args:
        wanted: "auto", "cpu", "cuda" or "cuda:NUMBER".
        local: the GPU that "auto" and "cuda" mean.

    Raises:
        BadInput: another name, or a GPU that is not here.
    """
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    name, colon, number = wanted.partition(":")
    if wanted != "cpu" and (name != "cuda" or (colon and not number.isdecimal())):
        raise BadInput(f"--device must be cpu or cuda. Got {wanted!r}.")
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise BadInput(f"--device {wanted}: PyTorch finds no GPU here. Leave it out, or give cpu.")
    index = int(number) if number else local
    if index >= count:
        raise BadInput(f"--device {wanted}: the GPUs here are cuda:0 to cuda:{count - 1}.")
    return torch.device("cuda", index)


def judging_device(wanted: str) -> torch.device:
    """The device that `--device` names, for what is measured and judged there.

    Convolutions on a GPU are told to sum in the same order every time and to keep all digits of float32: they would
    otherwise be rounded to TF32, and a gradient that differs in the third digit is not the model's. What a model does
    beside convolutions may still differ in its last bits from run to run.
    """
    import torch

    device = chosen_device(wanted)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device
