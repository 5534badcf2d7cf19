"""The pages in a headless Chromium: nothing overflows, nothing complains, sorting and filtering work."""

import json
from pathlib import Path

import pytest
from browser import Browser, missing
from PIL import Image

from verigrad.reports.html import IndexRow
from verigrad.reports.write import write_index

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

VERDICTS = ("upheld", "overstated", "obfuscated", "undecided")

# Elements that end outside the window, but for what scrolls by itself.
OVERFLOWING = """
return [...document.querySelectorAll('body *')].filter((element) => {
  const box = element.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1) && !element.closest('.scroll');
}).map((element) => element.outerHTML.slice(0, 120));
"""

# The contrast of every visible text with what lies behind it, after WCAG 2.1 (relative luminance), below a limit.
FAINT = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll('body *')) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
  if (!element.getClientRects().length || ['SCRIPT', 'OPTION'].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const ink = parse(element.namespaceURI.includes('svg') ? style.fill : style.color);
  const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) found.push(ratio.toFixed(2) + ' ' + element.outerHTML.slice(0, 100));
}
return found;
"""

COLUMN = """
const head = [...document.querySelectorAll('#table th')].findIndex((th) => th.dataset.key === '%s');
return [...document.querySelectorAll('#table tbody tr')].map((row) => row.cells[head].textContent.trim());
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def index(drawn, tmp_path_factory) -> Path:
    summaries = {name: json.loads((drawn(name) / "audit.json").read_text(encoding="utf-8")) for name in VERDICTS}
    rows = [IndexRow(summary, f"{name}/report.html") for name, summary in summaries.items()]
    return write_index(rows, tmp_path_factory.mktemp("index") / "report.html", title="Four models")


@pytest.fixture
def page(request, drawn, index):
    return index if request.param == "index" else drawn(request.param) / "report.html"


@pytest.mark.parametrize("page", [*VERDICTS, "bare", "hostile", "index"], indirect=True)
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (740, False), (400, False)])
def test_a_page_is_whole_at_every_width(browser, page, width, dark, tmp_path):
    browser.open(page, width=width, dark=dark)
    assert browser.errors() == []
    assert browser.run(OVERFLOWING) == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    (tmp_path / "page.png").write_bytes(browser.picture(tmp_path / "page.png"))
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width == width
        assert picture.height >= 800
        dark_corner = sum(picture.convert("RGB").getpixel((1, 1))) < 200
    assert dark_corner == dark


@pytest.mark.parametrize("page", [*VERDICTS, "index"], indirect=True)
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_contrast(browser, page, dark):
    browser.open(page, dark=dark)
    assert browser.run(FAINT) == []


def test_the_contrast_check_sees_faint_text(browser, drawn):
    browser.open(drawn("bare") / "report.html")
    browser.run("document.querySelector('h1').style.color = '#ccc'")
    assert len(browser.run(FAINT)) == 1


def test_one_layout_of_each_figure_is_shown(browser, drawn):
    shown = (
        "return [...document.querySelectorAll('svg.figure')].filter((svg) => svg.getBoundingClientRect().width).length"
    )
    for width in (1200, 400):
        browser.open(drawn("obfuscated") / "report.html", width=width)
        assert browser.run(shown) == 2


def test_a_hostile_page_runs_nothing(browser, drawn):
    browser.open(drawn("hostile") / "report.html")
    assert browser.run("return document.querySelectorAll('img[src=x], script').length") == 1
    assert browser.errors() == []


def test_a_click_sorts_and_a_second_one_turns_the_order(browser, drawn):
    browser.open(drawn("obfuscated") / "report.html")
    click = "document.querySelector('th[data-key=margin] button').click()"
    for turn, order in ((1, "ascending"), (2, "descending")):
        browser.run(click)
        margins = [float(text.replace("−", "-")) for text in browser.run(COLUMN % "margin")]
        assert margins == sorted(margins, reverse=turn == 2)
        assert browser.run("return document.querySelector('th[data-key=margin]').ariaSort") == order
    assert "sort=margin" in browser.run("return location.hash")


def test_what_is_missing_comes_last_in_both_orders(browser, drawn):
    for direction in ("up", "down"):
        browser.open(drawn("overstated") / "report.html", f"#samples?sort=distance&dir={direction}")
        cells = browser.run(COLUMN % "distance")
        first = cells.index("—")
        assert first > 0
        assert set(cells[first:]) == {"—"}


def test_an_address_brings_its_view_along(browser, drawn):
    browser.open(drawn("obfuscated") / "report.html", "#samples?show=later&sort=label&dir=down")
    summary = json.loads((drawn("obfuscated") / "audit.json").read_text(encoding="utf-8"))
    later = sum(attack["added"] for attack in summary["attacks"] if attack["stage"] != "claim")
    labels = [int(text) for text in browser.run(COLUMN % "label")]
    assert len(labels) == later
    assert labels == sorted(labels, reverse=True)
    assert browser.run("return document.querySelector('output').textContent") == f"{later} of 200 samples"


@pytest.mark.parametrize(
    ("find", "key", "cells"), [("label = 3", "label", {"3"}), ("frozen", "attack", {"frozen grid"})]
)
def test_find_keeps_matching_rows(browser, drawn, find, key, cells):
    browser.open(drawn("obfuscated") / "report.html")
    browser.run(
        f"const field = document.forms[0].find; field.value = {json.dumps(find)};"
        "field.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert set(browser.run(COLUMN % key)) == cells


def test_without_scripts_every_sample_is_there(browser, drawn):
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(drawn("obfuscated") / "report.html")
    browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert len(browser.run(COLUMN % "sample")) == 200
    assert browser.run("return document.querySelector('form.tools').hidden")


def test_a_page_prints_light_on_a_few_sheets(browser, drawn, tmp_path):
    browser.open(drawn("obfuscated") / "report.html", dark=True)
    paper = browser.paper(tmp_path / "page.pdf")
    assert paper.startswith(b"%PDF-")
    sheets = paper.count(b"/Type /Page\n")
    assert 2 <= sheets <= 12
    browser.open(drawn("obfuscated") / "report.html", dark=True, media="print")
    assert browser.run("return getComputedStyle(document.body).color") == "rgb(29, 33, 38)"
