"""Audits on a terminal of 100 columns, with and without colour."""

import io
import json

import pytest
from rich.console import Console
from scenes import SCENES

from verigrad.reports.terminal import comparison, report


def summary(drawn, name):
    return json.loads((drawn(name) / "audit.json").read_text(encoding="utf-8"))


def shown(renderable, *, terminal=False, width=100):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system="truecolor" if terminal else None
    )
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_says_it_all_in_words(drawn):
    text = shown(comparison([summary(drawn, name) for name in SCENES]))
    for name, scene in SCENES.items():
        assert scene.verdict in text, name
    for word in ("model", "clean", "claimed", "found", "95 % interval", "verdict", "main cause", "62.5 %", "0–2 %"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("name", SCENES)
def test_one_audit_fits(drawn, name, width):
    text = shown(report(summary(drawn, name)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert SCENES[name].verdict.upper() in text
    assert "None" not in text
    assert "nan" not in text.lower().split()


@pytest.mark.parametrize("name", [name for name in SCENES if name != "hostile"])
def test_no_word_is_broken_at_80_columns(drawn, name):
    told = summary(drawn, name)
    seen = set(shown(report(told), width=80).split())
    texts = [told["title"], *told["reasons"], *(attack["name"] for attack in told["attacks"])]
    texts += [cause[key] for cause in told["causes"] for key in ("label", "intervention")]
    assert {word for text in texts for word in text.split()} <= seen


@pytest.mark.parametrize("name", SCENES)
def test_a_pipe_gets_plain_text(drawn, name):
    text = shown(report(summary(drawn, name)))
    assert "\x1b" not in text
    assert "╭" not in text


def test_a_terminal_gets_a_frame_and_colour(drawn):
    text = shown(report(summary(drawn, "obfuscated")), terminal=True)
    assert "\x1b[" in text
    assert "╭" in text


def test_names_are_not_markup(drawn):
    told = summary(drawn, "upheld") | {"title": "[bold]net[/bold] [link=file:///x]y[/link]"}
    assert "[bold]net[/bold]" in shown(comparison([told]), width=200)
    assert "[bold]net[/bold]" in shown(report(told), terminal=True)


def test_causes_attacks_and_health_are_listed(drawn):
    text = shown(report(summary(drawn, "obfuscated")))
    assert "frozen grid" in text
    assert "does not hold: the step-size controller" in text
    assert "does not hold" not in shown(report(summary(drawn, "upheld")))
    assert "Causes: none" in shown(report(summary(drawn, "upheld")))
