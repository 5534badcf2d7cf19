"""The threats of `--eps-curve 2/255,4/255`: one norm, eps after eps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from verigrad.core.errors import BadInput
from verigrad.core.threat import L0, L2, Linf, Threat

NUMBER = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


class Rung(NamedTuple):
    """One eps, as it was written, and its threat."""

    label: str
    threat: Threat


def parse_ladder(text: str, threat: Threat) -> tuple[Rung, ...]:
    """The threats of `2/255,4/255`, in the norm of `threat`.

    Raises:
        BadInput: something that is no number, no whole number where eps counts pixels, or not larger than the one
            before it; the first must be above 0.
    """
    rungs: list[Rung] = []
    for label in ("".join(part.split()) for part in text.split(",")):
        eps = _number(label)
        if isinstance(threat, L0) and not eps.is_integer():
            raise BadInput(f"--eps-curve counts whole pixels under L0. Got {label!r}. For example 1,2,5.")
        if eps <= (rungs[-1].threat.size if rungs else 0.0):
            before = f"After {rungs[-1].label}" if rungs else "First"
            raise BadInput(f"--eps-curve must rise from above 0. {before} it has {label}.")
        rungs.append(Rung(label, _sized(threat, eps)))
    return tuple(rungs)


def _number(label: str) -> float:
    top, slash, bottom = label.partition("/")
    if all(re.fullmatch(NUMBER, part) for part in ((top, bottom) if slash else (top,))):
        low = float(bottom) if slash else 1.0
        if low and math.isfinite(value := float(top) / low):
            return value
    raise BadInput(f"--eps-curve must be numbers between commas, such as 2/255,4/255,8/255. Got {label!r}.")


def _sized(threat: Threat, eps: float) -> Threat:
    if isinstance(threat, Linf | L2):
        return replace(threat, eps=eps)
    assert isinstance(threat, L0)
    return replace(threat, pixels=int(eps))


def check_reach(ladder: Sequence[Rung], shape: Sequence[int]) -> None:
    """Refuses an eps beyond which no image (C, H, W) has anything left to change.

    Raises:
        BadInput: naming the largest eps that makes sense, and the first above it.
    """
    threat, (channels, *sides) = ladder[0].threat, shape
    low, high = threat.bounds
    pixels = math.prod(sides)
    most = {Linf: high - low, L2: (high - low) * math.sqrt(channels * pixels), L0: float(pixels)}[type(threat)]
    for rung in ladder:
        if rung.threat.size > most:
            hint = " Did you mean 8/255?" if isinstance(rung.threat, Linf) and rung.threat.size == 8 else ""
            size = "×".join(map(str, shape))
            norm = str(rung.threat).partition(":")[0]
            raise BadInput(
                f"--eps-curve goes up to {most:g} under {norm}: no two images of {size} in [{low:g}, {high:g}] lie "
                f"further apart. Got {rung.label}.{hint}"
            )
