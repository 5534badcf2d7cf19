"""The pages as text: whole, honest, self-contained, and deaf to hostile names."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from scenes import SCENES

from verigrad.ledger.store import Ledger
from verigrad.reports.html import IndexRow, index_page, page
from verigrad.reports.summary import Material, gather

VERDICTS = ("upheld", "overstated", "obfuscated", "undecided")
VOID = {"meta", "link", "img", "br", "input", "wbr"}


class Reader(HTMLParser):
    """Tags with their attributes, and the text that a person would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        # A cell or a row may be left open in HTML; everything else must close in order.
        while self.open and self.open[-1] != tag and self.open[-1] in ("td", "tr"):
            self.open.pop()
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.seen).split())


def read(folder):
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCENES)
def test_tags_are_balanced_and_ids_unique(drawn, name):
    reader = read(drawn(name))
    assert reader.open == []
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_fetched_and_only_our_script_runs(drawn, name):
    reader = read(drawn(name))
    for tag, attrs in reader.tags:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not [key for key in attrs if key.startswith("on")]
        for key in ("src", "href"):
            assert (attrs.get(key) or "#").startswith(("#", "data:"))
    assert len(reader.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(reader.scripts[0].encode()).digest()).decode()
    policy = next(attrs["content"] for _, attrs in reader.tags if attrs.get("http-equiv"))
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_page_names_no_address_of_another_machine(drawn):
    text = (drawn("obfuscated") / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"""https?:|["'(=]//""", text) == []
    assert "url(" not in text


def test_hostile_names_stay_text(drawn):
    reader = read(drawn("hostile"))
    assert not {tag for tag, _ in reader.tags} & {"u", "b onclick"}
    assert [attrs for tag, attrs in reader.tags if tag == "img" and attrs.get("src") == "x"] == []
    title = str(SCENES["hostile"].title)
    assert title in reader.text
    assert "</title><script>alert(4)</script>" in reader.text
    assert "<svg onload=alert(5)>" in reader.text


@pytest.mark.parametrize("name", SCENES)
def test_what_is_missing_is_never_printed_as_a_number(drawn, name):
    words = re.findall(r"[A-Za-z]+", read(drawn(name)).text)
    assert not {"None", "nan", "NaN", "inf", "undefined"} & set(words)


def test_a_summary_full_of_nothing_is_drawn(drawn):
    with Ledger.read(drawn("obfuscated") / "ledger.sqlite") as ledger:
        material = gather(ledger)
    nothing = dict.fromkeys(("clean", "claimed", "found", "gap", "found_alone", "main_cause"))
    empty = {
        "interval": [None, None],
        "gap_interval": [None, None],
        "claim": {"stated": None, "attack": "pgd", "measured": None},
    }
    reader = Reader(page(Material(summary={**material.summary, **nothing, **empty}, lines=(), proofs=(), witnesses=0)))
    assert "—" in reader.text
    assert not {"None", "nan"} & set(re.findall(r"[A-Za-z]+", reader.text))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_reasons_and_numbers_are_there(drawn, verdict):
    text = read(drawn(verdict)).text
    assert verdict in text
    for reason in SCENES[verdict].reasons:
        assert reason in text
    for word in (
        "claimed",
        "found",
        "95 % interval",
        "n = ",
        "linf:",
        "sonets.zoo:build",
        f"verigrad verify {verdict}",
    ):
        assert word in text


def test_upheld_promises_nothing(drawn):
    text = read(drawn("upheld")).text
    assert "Nothing was found that contradicts the claim" in text
    assert "not a proof" in text
    assert "safe" not in text.lower().split()


def test_sections_that_have_nothing_say_so(drawn):
    text = read(drawn("bare")).text
    for sentence in (
        "No attack was run",
        "No health check was run",
        "No round was run",
        "There are none: no attack broke",
    ):
        assert sentence in text


def test_a_joint_batch_is_explained_only_where_there_is_one(drawn):
    assert "a witness is a joint batch" in read(drawn("obfuscated")).text
    assert "a witness is a joint batch" not in read(drawn("overstated")).text


def test_fired_checks_come_first(drawn):
    text = read(drawn("obfuscated")).text
    assert text.index("the step-size controller does not turn the gradient") < text.index("finite logits and gradients")


def test_witness_pictures_are_inline_and_at_most_twenty_four(drawn):
    reader = read(drawn("obfuscated"))
    sources = [attrs["src"] for tag, attrs in reader.tags if tag == "img"]
    assert len(sources) == 3 * 24
    assert all(str(source).startswith("data:image/png;base64,") for source in sources)
    assert all(attrs.get("alt") for tag, attrs in reader.tags if tag == "img")


def test_the_table_has_a_row_for_every_sample(drawn):
    reader = read(drawn("obfuscated"))
    rows = [
        attrs
        for tag, attrs in reader.tags
        if tag == "tr" and attrs.get("class") in ("wrong", "claim", "later", "stands")
    ]
    assert len(rows) == 200


def test_a_folder_with_a_strange_name_is_quoted(drawn):
    with Ledger.read(drawn("bare") / "ledger.sqlite") as ledger:
        assert "verigrad verify 'my runs; rm x'" in Reader(page(gather(ledger), folder="my runs; rm x")).text


def test_the_index_links_every_audit(drawn):
    rows = []
    for name in (*VERDICTS, "hostile"):
        with Ledger.read(drawn(name) / "ledger.sqlite") as ledger:
            rows.append(IndexRow(gather(ledger).summary, f"{name}/report.html"))
    reader = Reader(index_page(rows, title="Five <models>"))
    assert reader.open == []
    assert [attrs["href"] for tag, attrs in reader.tags if tag == "a"] == [row.href for row in rows]
    assert "Five <models>" in reader.text
    assert "gradient through the batch-coupled step size" in reader.text
    assert sum(tag == "svg" for tag, _ in reader.tags) == 5
    assert {"i", "u"} & {tag for tag, _ in reader.tags} == set()


def test_an_index_of_nothing_says_so():
    assert "No audits yet." in Reader(index_page([])).text


@pytest.mark.parametrize("name", SCENES)
def test_no_code_name_of_a_health_check_is_shown(drawn, name):
    """Sentences name the label of a check."""
    reader = read(drawn(name))
    assert not {"cross_gradient", "grid_gradient", "non_finite", "zero_gradient"} & set(re.findall(r"\w+", reader.text))


def test_every_confirmed_cause_says_so(drawn):
    reader = read(drawn("obfuscated"))
    tags = [attrs.get("class") for tag, attrs in reader.tags if tag == "span"]
    causes = SCENES["obfuscated"].causes
    assert tags.count("tag yes") == sum(cause[-1] for cause in causes) == 3
    assert tags.count("tag") == sum(not cause[-1] for cause in causes) == 1
