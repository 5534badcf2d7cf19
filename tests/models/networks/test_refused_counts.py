"""Every network of the catalog refuses sizes below one, in one line that names the size, before it is built."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from torch import nn

from verigrad.catalog import Entry, build, entries, load
from verigrad.core.errors import BadInput

SIZES = (
    "channels",
    "classes",
    "in_channels",
    "size",
    "depth",
    "widen",
    "blocks",
    "convolutions",
    "columns",
    "branches",
    "order",
)


def sizes(entry: Entry) -> list[str]:
    found = signature(load(entry)).parameters
    return [name for name in SIZES if name in found and not isinstance(found[name].default, tuple)]


CASES = [(entry, size) for entry in entries("model") for size in sizes(entry)]


def refuses(make: type[nn.Module], size: str, value: int) -> None:
    with torch.device("meta"), pytest.raises(BadInput, match=f"'{size}'.*Got {value}") as told:
        make(**{size: value})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", [0, -2])
@pytest.mark.parametrize(("entry", "size"), CASES, ids=[f"{entry.name}-{size}" for entry, size in CASES])
def test_a_size_below_one_is_refused(entry: Entry, size: str, value: int) -> None:
    refuses(load(entry), size, value)


def test_every_network_has_classes_that_are_tried() -> None:
    tried = {entry.name for entry, size in CASES if size == "classes"}
    assert tried == {entry.name for entry in entries("model")} - {"scaled-logits", "quantised-input", "normalised"}


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("name", ["sonet", "soblock", "soblock-wide"])
def test_no_variant_takes_images_without_channels(name: str, variant: str) -> None:
    with torch.device("meta"), pytest.raises(BadInput, match=r"'in_channels'.*Got -1"):
        build("model", f"{name}:in_channels=-1,variant={variant}")


class Unchecked(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(64, classes))


@pytest.mark.parametrize(("value", "what"), [(0, pytest.fail.Exception), (-2, RuntimeError)])
def test_a_network_that_refuses_nothing_is_found_out(value: int, what: type[BaseException]) -> None:
    with pytest.raises(what):
        refuses(Unchecked, "classes", value)
