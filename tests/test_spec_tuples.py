"""Tuples in specs: of objects, of one object, and what is no tuple."""

from __future__ import annotations

from typing import Any

import pytest

from verigrad.attacks.base import Attack
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.catalog import _build_nested, _nested
from verigrad.core.errors import BadInput
from verigrad.spec import Mismatch, Value, convert, expectation, read, write

ATTACKS = tuple[Attack, ...]


def value_of(text: str) -> Value:
    pairs = read(f"thing:key={text}").pairs
    assert pairs is not None
    return pairs["key"]


@pytest.mark.parametrize(
    ("text", "attacks"),
    [
        ("(pgd(steps=3),fgsm)", (PGD(steps=3), FGSM())),
        ("(fgsm,)", (FGSM(),)),
        ("fgsm", (FGSM(),)),
        ("pgd(steps=3)", (PGD(steps=3),)),
        ("()", ()),
    ],
)
def test_a_tuple_of_objects_is_built_and_survives_its_text(text: str, attacks: tuple[Attack, ...]):
    built = convert(value_of(text), ATTACKS, _build_nested)
    assert built == attacks
    written = write(built, ATTACKS, _nested)
    assert convert(value_of(written), ATTACKS, _build_nested) == attacks


def test_a_hyphen_in_a_name_does_not_cut_it():
    (one,) = convert(value_of("cw-linf(steps=4)"), ATTACKS, _build_nested)
    (other,) = convert(value_of("cw-linf"), ATTACKS, _build_nested)
    assert type(one).__name__ == type(other).__name__ == "CarliniWagnerLinf"
    assert one.steps == 4


@pytest.mark.parametrize("annotation", [tuple[int, ...], tuple[float, ...], tuple[str, ...], tuple, ATTACKS])
def test_quoted_text_is_no_tuple(annotation: Any):
    with pytest.raises(Mismatch):
        convert(value_of('"1-1"'), annotation, _build_nested)


def test_an_object_is_no_tuple_of_numbers():
    with pytest.raises(Mismatch):
        convert(value_of("fgsm(steps=1)"), tuple[int, ...], _build_nested)


def test_a_wrong_member_is_named():
    with pytest.raises(BadInput, match="no attack 'fgms'"):
        convert(value_of("(pgd,fgms)"), ATTACKS, _build_nested)
    assert "Attack" in expectation(ATTACKS)
    assert "1-1-1-1" in expectation(tuple[int, ...])
