"""`verigrad reproduce`: what it lists, what it refuses, and that it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell, files

from verigrad.papers import reproduce as papers
from verigrad.papers.recipe import Recipe
from verigrad.papers.result import Finding, Measured, Result, Series, compared
from verigrad.papers.workshop import Net, Workshop

NET = Net(model="small-conv:channels=2", data="digits", n=50, epochs=1, lr=0.1)


def small(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Two cells, one claim that does not hold, and one curve."""
    workshop.net(NET)
    yield compared("a/one", ("net", ""), "accuracy %", 50.0, Measured.share(9, 10), band=5.0, protocol=f"{scale} data")
    yield compared("a/one", ("net", ""), "hours", None, Measured(0.5, None, None, 1), band=5.0, protocol="")
    yield Finding("a/one", "It is always right", False, "9 of 10", "one image is blurred")
    yield Series("a/one", "figure", "net", (0.0, 1.0), (1.0, 0.5), "eps", "accuracy")


def greedy(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Needs data that are not here."""
    workshop.net(Net(model="small-conv", data="cifar10", epochs=1, lr=0.1))
    yield Finding("a/two", "Never reached", True, scale)


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = (
        Recipe(id="a/one", title="one thing", redo=small, cost={"gpu": "3 min"}, needs={"paper": "a telescope"}),
        Recipe(id="a/two", title="another", redo=greedy),
    )
    monkeypatch.setattr(papers, "RECIPES", made)


@pytest.mark.usefixtures("recipes")
def test_list_says_what_is_done_what_it_costs_and_what_it_needs(verigrad: Shell, tmp_path: Path) -> None:
    assert verigrad("reproduce", "a/one", "--scale", "smoke", "--out", tmp_path).code == 0
    words = {
        "smoke": ("a/one", "done,", "one thing"),
        "cpu": ("a/one", "not run"),
        "gpu": ("not run", "3 min"),
        "paper": ("not run", "a telescope"),
    }
    for scale, parts in words.items():
        said = verigrad("reproduce", "list", "--scale", scale, "--out", tmp_path)
        first, second = (line for line in said.out.splitlines() if line.startswith("a/"))
        assert all(part in first for part in parts), first
        assert "not run" in second


def test_no_word_of_the_list_is_lost_where_it_is_wrapped(verigrad: Shell, tmp_path: Path) -> None:
    said = verigrad("reproduce", "list", "--out", tmp_path)
    words = set(said.out.split())
    assert words >= {word for recipe in papers.RECIPES for word in (recipe.id, *recipe.title.split())}


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize("broken", ["{", "[]", '{"seconds": null}'])
def test_results_that_cannot_be_read_are_listed_so_and_made_again(verigrad: Shell, tmp_path: Path, broken: str) -> None:
    file = tmp_path / "smoke" / "results" / "a-one.json"
    file.parent.mkdir(parents=True)
    file.write_text(broken)
    assert "unreadable" in verigrad("reproduce", "list", "--scale", "smoke", "--out", tmp_path).out
    verigrad("reproduce", "all", "--scale", "smoke", "--out", tmp_path, "--data", tmp_path / "none")
    assert json.loads(file.read_text())["id"] == "a/one"


@pytest.mark.usefixtures("recipes")
def test_a_table_is_printed_and_written(verigrad: Shell, tmp_path: Path) -> None:
    said = verigrad("reproduce", "a/one", "--scale", "smoke", "--out", tmp_path)
    row = next(line for line in said.out.splitlines() if line.startswith("net"))
    assert row.split() == ["net", "accuracy", "%", "50", "90", "55.5", "to", "99.7", "differs"]
    text = " ".join(said.out.split())
    assert "differs: It is always right (9 of 10). Reason: one image is blurred." in text
    written = json.loads((tmp_path / "smoke" / "results" / "a-one.json").read_text())
    assert written["command"] == "verigrad reproduce a/one --scale smoke"
    assert written["cells"][0]["reason"] == written["cells"][0]["protocol"] == "smoke data"
    assert written["series"][0]["y"] == [1.0, 0.5]


@pytest.mark.usefixtures("recipes")
def test_all_tells_what_it_cannot_run_and_runs_only_what_is_missing(verigrad: Shell, tmp_path: Path) -> None:
    first = verigrad("reproduce", "all", "--scale", "smoke", "--out", tmp_path, "--data", tmp_path / "none")
    assert first.code == 2
    assert "error: a/two:" in first.err
    assert "1 of 2 have results" in first.out
    kept = tmp_path / "smoke" / "results" / "a-one.json"
    before = kept.stat().st_mtime_ns
    again = verigrad("reproduce", "all", "--scale", "smoke", "--out", tmp_path, "--data", tmp_path / "none")
    assert again.code == 2
    assert kept.stat().st_mtime_ns == before


@pytest.mark.usefixtures("recipes")
def test_a_time_limit_keeps_what_was_done(verigrad: Shell, tmp_path: Path) -> None:
    said = verigrad("reproduce", "a/one", "--scale", "smoke", "--out", tmp_path, "--minutes", "1e-6")
    assert said.code == 0
    assert "The same command goes on from there." in said.out
    assert not list(tmp_path.glob("smoke/results/a-*.json"))
    assert verigrad("reproduce", "a/one", "--scale", "smoke", "--out", tmp_path, "--minutes", "5").code == 0
    assert list(tmp_path.glob("smoke/results/a-*.json"))


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("a/three",), "There is no table or figure 'a/three'. Known: a/one, a/two."),
        (("a/one", "--scale", "tiny"), "The scale must be one of smoke, cpu, gpu, paper. Got 'tiny'."),
        (("list", "--scale", "tiny"), "Got 'tiny'"),
        (("a/one", "--minutes", "0"), "--minutes must be a number above 0"),
        (("a/two", "--data", "nowhere"), "--data names the folder that holds cifar10/."),
    ],
)
def test_what_cannot_be_run_is_one_line(words: tuple[str, ...], part: str, verigrad: Shell, tmp_path: Path) -> None:
    assert part in verigrad("reproduce", *words, "--out", tmp_path).error
    assert not files(tmp_path)
