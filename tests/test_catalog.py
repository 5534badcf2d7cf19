"""The table of names: what it holds, what specs it reads, and how it refuses the rest."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigrad import catalog
from verigrad.catalog import KINDS, TABLE, Entry, build, complete, describe, entries, find, load
from verigrad.core.errors import BadInput
from verigrad.spec import Mismatch, Unreadable, Value, convert, read, write

# What must be given to an entry whose class has parameters without defaults.
REQUIRED = {
    "scaled-logits": "scaled-logits:module=small-conv,scale=1e3",
    "quantised-input": "quantised-input:module=small-conv(channels=4),levels=8",
    "normalised": "normalised:module=small-conv,mean=(0.5),std=(0.25)",
    "on-twin": "on-twin:attack=pgd(steps=3),change=rescaled",
    "linf": "linf:eps=8/255",
    "l2": "l2:eps=1",
    "l0": "l0:pixels=3,bounds=(-1,1)",
    "adversarial": "adversarial:threat=l2(eps=0.5),attack=pgd(steps=3)",
    "fgsm-adversarial": "fgsm-adversarial:threat=linf(eps=8/255)",
    "gaussian-noise": "gaussian-noise:sigma=0.25",
    "trades": "trades:threat=linf(eps=0.031),beta=1",
    "free": "free:threat=linf(eps=8/255),replays=4",
    "yopo": "yopo:threat=linf(eps=8/255),passes=3",
    "smoothing": "smoothing:sigma=0.25,radii=(0.25,0.5)",
    "steps": "steps:at=(150/350,300/350)",
    "transfer": 'transfer:attack=pgd(steps=3),source="controls:hard_linear"',
    "other-tolerance": "other-tolerance:tol=1e-3",
    "worst-case": "worst-case:attacks=(pgd(steps=3),fgsm)",
    "nearest-of": "nearest-of:attacks=(smallest-eps(rounds=3))",
    "sonet": "sonet:channels=4,in_channels=1,blocks=1-1-1-1",
}
DATACLASSES = ("threat", "attack", "change", "objective", "algorithm", "schedule", "certificate")


def spec_of(entry: Entry) -> str:
    return REQUIRED.get(entry.name, entry.name)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_entry_names_a_class_that_can_be_built(entry: Entry) -> None:
    assert type(build(entry.kind, spec_of(entry))) is load(entry)
    assert entry.summary
    assert entry.kind in KINDS


@pytest.mark.parametrize(
    "entry", [entry for entry in TABLE if entry.kind in DATACLASSES], ids=lambda entry: f"{entry.kind}-{entry.name}"
)
def test_the_canonical_spec_gives_the_same_object_again(entry: Entry) -> None:
    obj = build(entry.kind, spec_of(entry))
    text = describe(obj)
    assert build(entry.kind, text) == obj
    assert describe(build(entry.kind, text)) == text
    if is_dataclass(obj) and not isinstance(obj, type):
        assert [f"{field.name}=" in text for field in fields(obj)].count(False) == 0


def test_names_are_unique_within_their_kind() -> None:
    names = [(entry.kind, entry.name) for entry in TABLE]
    assert len(set(names)) == len(names)


def test_the_catalog_and_its_errors_need_no_torch() -> None:
    code = (
        "import sys; from verigrad import catalog; catalog.entries('attack')\n"
        "try: catalog.find('attack', 'pdg')\n"
        "except Exception as error: assert type(error).__name__ == 'BadInput', error\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_spec_sets_what_it_names_and_leaves_the_rest() -> None:
    pgd = build("attack", "pgd:steps=7, step_size=2/255, random_start=false, keep=last")
    assert (pgd.steps, pgd.step_size, pgd.random_start, pgd.keep) == (7, 2 / 255, False, "last")
    assert pgd.score == load(find("attack", "pgd")).score
    assert build("attack", "pgd:step_size=none").step_size is None
    assert build("attack", "pgd(steps=7)") == build("attack", "pgd:steps=7")


def test_entries_nest() -> None:
    spec = "on_twin:attack=on-twin(attack=pgd(steps=2),change=float64),change=fixed_steps(method=rk4,steps=4)"
    attack = build("attack", spec)
    assert attack.attack.attack.steps == 2
    assert attack.change.steps == 4
    text = describe(attack)
    assert text.startswith("on-twin:attack=on-twin(attack=pgd(keep=")
    assert "change=float64()" in text
    assert build("attack", text) == attack


@pytest.mark.parametrize(
    ("spec", "whole"),
    [
        ("small-conv", "small-conv:in_channels=3,classes=7"),
        ("small_conv( channels=8 )", "small_conv:channels=8,in_channels=3,classes=7"),
        ("small-conv:classes=2,channels=8", "small-conv:classes=2,channels=8,in_channels=3"),
        ("scaled-logits:scale=2,module=small-conv", "scaled-logits:scale=2,module=small-conv(in_channels=3,classes=7)"),
        ('sonet:method="bosh3",blocks=(1,1,1,1)', 'sonet:method="bosh3",blocks=(1,1,1,1),in_channels=3,classes=7'),
    ],
)
def test_a_model_is_completed_by_what_its_spec_leaves_open(spec: str, whole: str) -> None:
    assert complete(spec, in_channels=3, classes=7, unknown=1) == whole
    assert build("model", whole)


def test_equal_numbers_have_equal_text() -> None:
    assert describe(build("attack", "pgd:step_size=1")) == describe(build("attack", "pgd:step_size=1.0"))
    whole = load(find("attack", "pgd"))(step_size=1)
    assert describe(whole) == describe(build("attack", "pgd:step_size=1"))


@pytest.mark.parametrize(
    ("kind", "spec", "parts"),
    [
        ("attack", "pdg", ["no attack 'pdg'", "Did you mean 'pgd'?", "fgsm"]),
        ("atack", "pgd", ["no kind 'atack'", "Did you mean 'attack'?"]),
        ("algorithm", "fre", ["no algorithm 'fre'", "Did you mean 'free'?"]),
        ("attack", "pgd:step=3", ["no key 'step'", "Did you mean 'steps'?", "keep, random_start"]),
        ("attack", "pgd:steps=many", ["'steps' of pgd", "a whole number", "Got many", "keep, random_start"]),
        ("attack", "pgd:steps=1.5", ["a whole number", "Got 1.5"]),
        ("attack", "pgd:step_size=1/0", ["a number or none"]),
        ("attack", "pgd:step_size=nan", ["a number or none"]),
        ("attack", "pgd:random_start=yes", ["true or false"]),
        ("attack", "pgd:keep=first", ["one of best, last"]),
        ("attack", "pgd:steps=0", ["at least 1"]),
        ("attack", "pgd:steps=(1,2)", ["a whole number", "Got (1,2)"]),
        ("attack", "on-twin:change=rescaled", ["needs a value for attack"]),
        ("attack", "on-twin:attack=pgd,change=pgd", ["no change 'pgd'"]),
        ("attack", "on-twin:attack=pgd(stepz=2),change=rescaled", ["pgd has no key 'stepz'"]),
        ("attack", 'on-twin:attack="pgd",change=rescaled', ["a name of the catalog"]),
        ("model", "sonet:blocks=1-a", ["1-1-1-1"]),
        ("attack", "", ["Cannot read ''", "NAME:key=value"]),
        ("attack", "pgd:", ["Known"]),
        ("attack", "pgd:steps", ["expected '='"]),
        ("attack", "pgd:steps=1,", ["ends before a key"]),
        ("attack", "pgd:steps=1,steps=2", ["'steps' comes twice"]),
        ("attack", "pgd(steps=1", ["expected ')'"]),
        ("attack", "pgd:steps=1)", ["')' is not expected"]),
        ("attack", 'pgd:score="cross', ["a quote is not closed"]),
        ("attack", r'pgd:score="\q"', ["not a JSON string"]),
    ],
)
def test_a_bad_spec_is_refused_in_one_clear_line(kind: str, spec: str, parts: list[str]) -> None:
    if spec == "pgd:":
        assert build(kind, spec) == build(kind, "pgd")
        return
    with pytest.raises(BadInput) as caught:
        build(kind, spec)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_only_dataclass_objects_are_described() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        describe(build("model", "small-conv"))


@dataclass(frozen=True, kw_only=True)
class Own:
    """A class that the catalog does not know."""

    strength: float = 1
    name: str = "two words"


def test_a_class_of_the_users_own_is_named_by_its_path_and_never_built_from_text() -> None:
    text = describe(Own())
    assert text == f'{__name__}.Own:name="two words",strength=1.0'
    with pytest.raises(BadInput):
        build("attack", text)


def no_objects(word: Any, annotation: Any) -> Any:
    raise Mismatch


ANNOTATED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (str, st.text()),
    (float | None, st.none() | st.floats(allow_nan=False)),
    (str | None, st.none() | st.text()),
    (int | str, st.integers() | st.text()),
    (float | str | None, st.none() | st.floats(allow_nan=False) | st.text()),
    (tuple[int, ...], st.lists(st.integers()).map(tuple)),
    (tuple[float, float], st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False))),
    (tuple[str, ...] | None, st.none() | st.lists(st.text()).map(tuple)),
    (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_every_value_survives_its_text(data: st.DataObject) -> None:
    annotation, values = data.draw(st.sampled_from(ANNOTATED))
    value = data.draw(values)
    text = write(value, annotation, str)
    pairs = read(f"thing:key={text},other=1").pairs
    assert pairs is not None
    back = convert(pairs["key"], annotation, no_objects)
    assert back == value
    assert type(back) is type(value)
    assert write(back, annotation, str) == text


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='ab1=,():"\\ -./', max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tree = read(text)
    except Unreadable:
        return
    assert tree.text


@pytest.mark.parametrize(
    ("text", "value"), [("1-1-1-1", (1, 1, 1, 1)), ("5", (5,)), ("(1,-2)", (1, -2)), ("()", ()), ("(7)", (7,))]
)
def test_tuples_of_whole_numbers(text: str, value: tuple[int, ...]) -> None:
    pairs: dict[str, Value] | None = read(f"thing:key={text}").pairs
    assert pairs is not None
    assert convert(pairs["key"], tuple[int, ...], no_objects) == value


def test_entries_lists_every_row_once() -> None:
    assert sum((entries(kind) for kind in KINDS), ()) == TABLE
    assert find_spec(catalog.TABLE[0].target.partition(":")[0]) is not None
