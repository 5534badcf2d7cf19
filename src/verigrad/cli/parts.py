"""What the catalog says of an attack and of the attacks inside it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from verigrad import catalog
from verigrad.catalog import NORMS, Entry
from verigrad.core.errors import BadInput


def entry_of(attack: Any) -> Entry | None:
    """The row of an attack; None for what is none."""
    own = f"{type(attack).__module__}:{type(attack).__qualname__}"
    return next((entry for entry in catalog.entries("attack") if entry.target == own), None)


def inside(attack: Any) -> list[Any]:
    """The attacks that one holds in its fields, in their order; of the catalog's only."""
    values = [getattr(attack, one.name) for one in fields(attack)] if is_dataclass(attack) else []
    flat = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return [item for item in flat if entry_of(item)]


def norms_of(attack: Any) -> frozenset[str]:
    """The norms of the catalog that an attack takes: its own, or where its parts decide those that all of them take."""
    entry = entry_of(attack)
    if entry and entry.norms:
        return frozenset(entry.norms)
    return frozenset(NORMS).intersection(*map(norms_of, inside(attack)))


def knowledge_of(attack: Any) -> frozenset[str]:
    """What an attack asks the model for: gradient, logits, decision; its own, or all that its parts ask for."""
    entry = entry_of(attack)
    if entry and entry.knowledge:
        return frozenset(entry.knowledge)
    return frozenset[str]().union(*map(knowledge_of, inside(attack)))


def is_minimal(attack: Any) -> bool:
    """Whether its distances do not depend on how large the threat is; a wrapper is what its parts are."""
    entry = entry_of(attack)
    if entry is None or entry.form != "wrapper":
        return entry is not None and entry.form == "minimal"
    return all(map(is_minimal, inside(attack)))


def check_norm(specs: Mapping[str, Any], norm: str) -> None:
    """Refuses attacks that are not made for a norm, before anything is run.

    Args:
        specs: attacks by what the user wrote.
        norm: one of `NORMS`.

    Raises:
        BadInput: naming the first of them.
    """
    for spec, attack in specs.items():
        if norm not in (known := norms_of(attack)):
            told = " and ".join(_written(known)) or "no norm in common"
            raise BadInput(f"The attack {spec!r} is made for {told}, not for {NORMS[norm]}. See verigrad list attacks.")


def _written(norms: Iterable[str]) -> list[str]:
    return [NORMS[norm] for norm in NORMS if norm in set(norms)]
