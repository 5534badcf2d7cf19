"""`verigrad list` shows everything in the catalog, as the classes themselves have it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest

from verigrad.catalog import FORMS, KINDS, KNOWLEDGE, NORMS, TABLE, Entry, build, entries, find, load
from verigrad.cli.listing import parameters
from verigrad.cli.parts import check_norm, entry_of, is_minimal, knowledge_of, norms_of
from verigrad.core.errors import BadInput


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
    beside = {entry.name for entry in entries("algorithm")} if kind == "objective" else set()
    assert rows & {entry.name for entry in TABLE if entry.kind != kind} - own == beside


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


def test_a_default_that_the_source_names_is_shown_by_its_value() -> None:
    for entry in entries("attack"):
        for setting in parameters(entry):
            assert setting.default is None or not setting.default.isupper(), (entry.name, setting)


def test_every_attack_is_shown_with_norms_knowledge_and_kind(verigrad) -> None:
    said = verigrad("list", "attacks").out
    blocks = {}
    for line in said.splitlines()[2:]:
        name = line.split()[0] if line.startswith(" ") and line[1] != " " else None
        if name:
            blocks[name] = line
    assert set(blocks) == {entry.name for entry in entries("attack")}
    assert blocks["pgd"].split()[1:6] == ["Linf", "L2", "L0", "gradient", "budget"]
    assert blocks["boundary"].split()[1:5] == ["Linf", "L2", "decision", "minimal"]
    assert blocks["on-twin"].split()[1:6] == ["as", "inside", "as", "inside", "wrapper"]
    assert "Goodfellow et al. 2015" in blocks["fgsm"]


def test_it_needs_no_torch() -> None:
    code = "import sys; from verigrad.cli.main import main; main(['list']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch):
    """The contract of all attacks, whose cases say what may be asked of each."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "contracts")
    return import_module("test_attacks")


def test_the_facts_of_the_catalog_are_those_of_the_contract(contract) -> None:
    """The contract proves its norms by refusals, and its gradients by what a gradient of NaN does to the status."""
    assert {case.name for case in contract.CASES} == {entry.name for entry in entries("attack")}
    for case in contract.CASES:
        attack = build("attack", case.spec)
        assert norms_of(attack) == {norm.__name__.lower() for norm in case.norms}, case.spec
        assert ("gradient" in knowledge_of(attack)) == case.gradients, case.spec
        assert knowledge_of(attack) <= set(KNOWLEDGE)
        assert find("attack", case.name).form in FORMS


@pytest.mark.slow
def test_what_a_minimal_attack_finds_does_not_depend_on_the_size_of_the_threat(contract) -> None:
    """One run under a large threat tells all smaller ones; a budget attack, as a control, is told apart."""
    model, x, y = contract.hard_and_easy()
    for case in contract.CASES:
        attack = build("attack", case.spec)
        if not is_minimal(attack):
            continue
        for threat in case.threats:
            larger = replace(threat, **({"pixels": 4} if hasattr(threat, "pixels") else {"eps": 2 * threat.size}))
            small, large = (contract.run(attack, model, x, y, one) for one in (threat, larger))
            assert (small.broken == (large.broken & (large.distance <= threat.size))).all(), (case.spec, threat)
    pgd = build("attack", "pgd")
    threat = contract.THREATS[0]
    small, large = (contract.run(pgd, model, x, y, one) for one in (threat, replace(threat, eps=2 * threat.eps)))
    assert not is_minimal(pgd)
    assert (small.broken & ~(large.distance <= threat.eps)).any()


@pytest.mark.parametrize(
    ("spec", "norms", "knowledge", "minimal"),
    [
        ("on-twin:attack=fmn,change=rescaled", "linf l2 l0", "gradient", True),
        ("on-twin:attack=ddn,change=rescaled", "l2", "gradient", True),
        ("on-twin:attack=square,change=rescaled", "linf l2", "logits", False),
        ("worst-case:attacks=(apgd,square)", "linf l2", "gradient logits", False),
        ("worst-case:attacks=(fmn,ddn)", "l2", "gradient", False),
        ("worst-case:attacks=(cw-l0,ddn)", "", "gradient", False),
        ("smallest-eps:attack=spsa", "linf l2 l0", "logits", True),
        ("nearest-of:attacks=(boundary,on-twin(attack=fab,change=rescaled))", "linf l2", "decision gradient", True),
    ],
)
def test_an_attack_that_holds_others_is_what_they_are(spec: str, norms: str, knowledge: str, minimal: bool) -> None:
    attack = build("attack", spec)
    assert norms_of(attack) == set(norms.split())
    assert knowledge_of(attack) == set(knowledge.split())
    assert is_minimal(attack) == minimal
    for norm in NORMS:
        if norm in norms.split():
            check_norm({spec: attack}, norm)
        else:
            with pytest.raises(BadInput, match="verigrad list attacks"):
                check_norm({spec: attack}, norm)


def test_only_attacks_have_facts() -> None:
    for entry in TABLE:
        assert bool(entry.form) == (entry.kind == "attack"), entry.name
    assert entry_of("pgd") is None
