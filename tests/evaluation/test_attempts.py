"""Several attempts that are planned together are those that are made one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from subjects import opened, right, subject

from verigrad.attacks.base import Attack
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.evaluation.run import Wanted, attempt, attempts
from verigrad.ledger.schema import UnitRow
from verigrad.ledger.store import Ledger

ATTACKS: dict[str, Attack] = {"a": PGD(steps=2), "b": FGSM(), "c": PGD(steps=4)}


def wanted(ledger: Ledger, names: str) -> list[Wanted]:
    return [Wanted(stage="intervention", name=name, attack=ATTACKS[name], samples=right(ledger)) for name in names]


def rows(ledger: Ledger) -> list[UnitRow]:
    return [unit._replace(seconds=0.0) for unit in ledger.units()]


@pytest.mark.parametrize("workers", [0, 3])
def test_together_or_one_by_one(tmp_path, workers):
    of = subject(40, batch=5)
    with opened(tmp_path / "one.sqlite", of) as ledger:
        single = [attempts(of, ledger, [one])[0] for one in wanted(ledger, "abc")]
        expected = rows(ledger), ledger.seal()
    with opened(tmp_path / "all.sqlite", of) as ledger:
        told: list[tuple[int, int]] = []
        pool = ThreadPoolExecutor(workers) if workers else None
        made = attempts(of, ledger, wanted(ledger, "abc"), executor=pool, progress=lambda *now: told.append(now))
        assert (rows(ledger), ledger.seal()) == expected
        count = 3 * len(right(ledger))
    assert [one.broken for one in made] == [one.broken for one in single]
    assert [one.units for one in made] == [one.units for one in single]
    assert (told[0], told[-1]) == ((0, count), (count, count))
    assert told == sorted(told)


def test_the_same_again_attacks_nothing(tmp_path):
    of = subject(40, batch=5)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        first, before = attempts(of, ledger, wanted(ledger, "abc")), rows(ledger)
        told: list[tuple[int, int]] = []
        again = attempts(of, ledger, wanted(ledger, "abc"), progress=lambda *now: told.append(now))
        assert (again, rows(ledger)) == (first, before)
    assert told == [(told[0][1], told[0][1])]


@pytest.mark.parametrize("order", [("a", "c", "ab"), ("c", "a", "bca"), ("b", "ac", "cab")])
def test_no_two_units_have_one_place(tmp_path, order):
    of = subject(40, batch=5)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        for names in order:
            attempts(of, ledger, wanted(ledger, names))
        places = [unit.ordinal for unit in ledger.units()]
        assert len(set(places)) == len(places)


def test_nothing_is_asked_for_twice(tmp_path):
    of = subject(40, batch=5)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        with pytest.raises(BadInput, match="is asked for twice"):
            attempts(of, ledger, wanted(ledger, "aba"))
        assert not ledger.units()


def test_nothing_wanted(tmp_path):
    of = subject(40)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        assert attempts(of, ledger, []) == []


def test_any_attack_that_cannot_be_sent_is_named(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Local(FGSM):
        pass

    of = subject(40)
    with opened(tmp_path / "a.sqlite", of) as ledger, ThreadPoolExecutor(1) as pool:
        last = Wanted(stage="intervention", name="own", attack=Local(), samples=right(ledger))
        with pytest.raises(BadInput, match="cannot be sent to a worker"):
            attempts(of, ledger, [*wanted(ledger, "ab"), last], executor=pool)
        assert not ledger.units()


def test_one_attempt_is_one_of_several(tmp_path):
    of = subject(40, batch=5)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        (together,) = attempts(of, ledger, wanted(ledger, "a"))
        alone = attempt(of, ledger, stage="intervention", name="a", attack=ATTACKS["a"], samples=right(ledger))
        assert alone == together
