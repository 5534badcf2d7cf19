"""What can be redone, at which scale, and where its numbers go."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from verigrad.core.errors import BadInput
from verigrad.papers import (
    gradient_regularization_recipes,
    natural_robustness_recipes,
    optimal_control_recipes,
    sonet_recipes,
)
from verigrad.papers.recipe import SCALES, Recipe
from verigrad.papers.result import Finding, Result, Series
from verigrad.papers.workshop import Workshop

FORMAT = 1
# A list of numbers, which is written on one line.
NUMBERS = re.compile(r"\[[-+0-9.e,\s]+\]")
RECIPES: tuple[Recipe, ...] = (
    *sonet_recipes.RECIPES,
    *optimal_control_recipes.RECIPES,
    *natural_robustness_recipes.RECIPES,
    *gradient_regularization_recipes.RECIPES,
)


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Who is told how far a run is.

    Args:
        tell: what begins, in a few words.
        moved: how much of that is done, and how much there is to do.
    """

    tell: Callable[[str], None] = lambda _: None
    moved: Callable[[int, int], None] = lambda done, total: None


def find(name: str) -> Recipe:
    """The recipe of an id.

    Raises:
        BadInput: there is none.
    """
    for recipe in RECIPES:
        if recipe.id == name:
            return recipe
    raise BadInput(f"There is no table or figure {name!r}. Known: {', '.join(recipe.id for recipe in RECIPES)}.")


def check_scale(scale: str) -> None:
    """Raises BadInput for an unknown scale."""
    if scale not in SCALES:
        raise BadInput(f"The scale must be one of {', '.join(SCALES)}. Got {scale!r}.")


def results_file(folder: Path, recipe: Recipe, scale: str) -> Path:
    return folder / scale / "results" / f"{recipe.id.replace('/', '-')}.json"


def reproduce(
    recipe: Recipe,
    scale: str,
    folder: Path,
    watching: Watching | None = None,
    *,
    data: Path = Path("data"),
    time_limit: float | None = None,
) -> dict[str, Any]:
    """Runs a recipe, or goes on with it, and writes its numbers as JSON; gives what was written.

    Nets and attacks of the same scale are shared by all recipes in a folder.

    Args:
        recipe: of `RECIPES`.
        scale: one of `SCALES`.
        folder: for nets, ledgers and results.
        watching: who is told.
        data: the folder that holds `cifar10/` and `mnist/`; only some recipes need it.
        time_limit: seconds after which nothing new is begun; None for no limit.

    Raises:
        BadInput: the scale is unknown, or the recipe cannot be run, for instance without its data.
        OutOfTime: the time limit came first; the same call goes on.
    """
    check_scale(scale)
    told = watching or Watching()
    until = math.inf if time_limit is None else time.monotonic() + time_limit
    file = results_file(folder, recipe, scale)
    with _timed(file) as spent:
        found = list(recipe.redo(Workshop(folder / scale, told.tell, told.moved, data, until), scale))
    written = {
        "format": FORMAT,
        "id": recipe.id,
        "title": recipe.title,
        "scale": scale,
        "cells": [one.as_dict() for one in found if isinstance(one, Result)],
        "findings": [one.as_dict() for one in found if isinstance(one, Finding)],
        "series": [one.as_dict() for one in found if isinstance(one, Series)],
        **spent,
        "command": f"verigrad reproduce {recipe.id} --scale {scale}",
        "date": date.today().isoformat(),
        "machine": _machine(),
        "versions": {"verigrad": version("verigrad"), "torch": str(torch.__version__)},
    }
    _write(file, written)
    return written


@contextmanager
def _timed(file: Path) -> Iterator[dict[str, float]]:
    """Seconds by the clock and of the processor, together with those of earlier runs that did not end; what two recipes
    share is counted where it was made. Kept beside the results."""
    kept = file.with_name(f".{file.stem}.spent.json")
    spent: dict[str, float] = {"seconds": 0.0, "cpu_seconds": 0.0}
    if kept.exists():
        spent |= json.loads(kept.read_text(encoding="utf-8"))
    before = dict(spent)
    started = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent["seconds"] = round(before["seconds"] + time.perf_counter() - started[0], 1)
        spent["cpu_seconds"] = round(before["cpu_seconds"] + time.process_time() - started[1], 1)
        if file.parent.parent.exists():  # a recipe that was refused has left nothing
            _write(kept, spent)


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} thread{'s' * (threads > 1)}{gpu}"


def _write(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
    draft.write_text(NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n", encoding="utf-8")
    draft.replace(path)
