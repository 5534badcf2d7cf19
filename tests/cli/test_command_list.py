"""`verigrad list` shows everything in the catalog, as the classes themselves have it."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields, is_dataclass

import pytest

from verigrad.catalog import KINDS, TABLE, Entry, entries, load
from verigrad.cli.listing import parameters


def test_the_whole_catalog_is_shown(verigrad) -> None:
    said = verigrad("list")
    assert said.code == 0
    for entry in TABLE:
        assert entry.name in said.out
        assert entry.summary in said.out
        assert entry.paper in said.out
        for setting in parameters(entry):
            assert setting.name in said.out


@pytest.mark.parametrize("kind", [kind for kind in KINDS if entries(kind)])
@pytest.mark.parametrize("plural", ["", "s"])
def test_one_kind_is_shown_alone(verigrad, kind: str, plural: str) -> None:
    shown = verigrad("list", kind + plural).out
    own = {entry.name for entry in entries(kind)}
    rows = {line.split()[0] for line in shown.splitlines() if line.strip() and not line.startswith("  ")}
    assert own <= rows
    assert not rows & {entry.name for entry in TABLE if entry.kind != kind} - own


def test_an_unknown_kind_is_refused(verigrad) -> None:
    assert "'recipes'" in verigrad("list", "recipes").error


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_the_source_says_what_the_class_says(entry: Entry) -> None:
    cls = load(entry)
    told = {setting.name: setting.default is not None for setting in parameters(entry)}
    if is_dataclass(cls):
        free = (MISSING, MISSING)
        real = {one.name: (one.default, one.default_factory) != free for one in fields(cls) if one.init}
    else:
        given = inspect.signature(cls).parameters.values()
        real = {one.name: one.default is not inspect.Parameter.empty for one in given}
    assert told == real
