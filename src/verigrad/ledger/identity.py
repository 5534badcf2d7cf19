"""What makes two runs the same: a dictionary of plain values, its canonical text, and its versioned hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.schema import FORMAT

ABSENT = "(absent)"


class Difference(NamedTuple):
    """One key, dotted where it is nested, on which two identities differ; the values as they read in JSON."""

    key: str
    stored: str
    given: str


def canonical(value: Any, name: str = "identity") -> str:
    """The one JSON text of a value: keys sorted, no spaces, floats by their shortest exact form.

    Raises:
        LedgerError: the value holds something that JSON cannot, or a number that is not finite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"The {name} must hold only text, finite numbers, booleans, None, lists and dicts. {error}."
        ) from None


def identity_hash(identity: Mapping[str, Any]) -> str:
    """sha256, 64 hexadecimal digits, of the canonical identity together with the ledger's format version."""
    return hashlib.sha256(canonical({"format": FORMAT, "identity": dict(identity)}).encode()).hexdigest()


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every key on which two identities differ, sorted; a key that one of them lacks reads '(absent)' there."""
    left, right = _leaves(stored), _leaves(given)
    keys = sorted(left.keys() | right.keys())
    pairs = ((key, left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys)
    return tuple(Difference(*pair) for pair in pairs if pair[1] != pair[2])


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    leaves: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            leaves |= _leaves(item, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = canonical(item)
    return leaves
