"""The hash of an identity is the same for ever, and differences are named."""

import pytest

from verigrad.ledger.errors import LedgerError
from verigrad.ledger.identity import Difference, differences, identity_hash
from verigrad.ledger.schema import FORMAT

KNOWN = {"threat": "linf:0.1", "batch": 100, "claim": {"attack": "pgd:steps=20", "stated": None}, "ε": 0.1}
# sha256 of this text, in one line and without the blank:
# {"format":1,"identity":{"batch":100,"claim":{"attack":"pgd:steps=20","stated":null}, "threat":"linf:0.1","ε":0.1}}
GOLDEN = "d17f7b6780e6e9c94dbffd67f3c8d7b2780d1f9dbd0cfa2d22c40db7d9664e5a"


def test_golden_value():
    assert FORMAT == 1, "a new format needs a new golden value"
    assert identity_hash(KNOWN) == GOLDEN
    assert identity_hash(dict(reversed(KNOWN.items()))) == GOLDEN
    assert identity_hash(KNOWN | {"batch": 100.0}) != GOLDEN


def test_differences_are_named_with_both_values():
    other = {"threat": "linf:0.2", "batch": 100, "claim": {"attack": "pgd:steps=20", "stated": 0.5}, "new": [1, 2]}
    assert differences(KNOWN, KNOWN) == ()
    assert differences(KNOWN, other) == (
        Difference("claim.stated", "null", "0.5"),
        Difference("new", "(absent)", "[1,2]"),
        Difference("threat", '"linf:0.1"', '"linf:0.2"'),
        Difference("ε", "0.1", "(absent)"),
    )
    assert differences({"a": {}}, {"a": {"b": 1}}) == (
        Difference("a", "{}", "(absent)"),
        Difference("a.b", "(absent)", "1"),
    )


@pytest.mark.parametrize("value", [float("inf"), object(), b"bytes", {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(LedgerError, match="must hold only"):
        identity_hash({"key": value})
