"""The page of a curve in a headless Chromium: it overflows nowhere, every text is legible, one layout is shown."""

import pytest
from browser import Browser, missing
from curves import Run, build
from test_page_in_browser import FAINT, OVERFLOWING

from verigrad.reports.curve_gathering import gather_curve
from verigrad.reports.curve_page import write_curve

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

# Where two texts of the shown figure lie on each other.
COLLIDING = """
const svg = [...document.querySelectorAll('svg.curve')].find((one) => one.getBoundingClientRect().width);
const boxes = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
const meet = (a, b) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom;
return boxes.flatMap(([name, a], i) =>
  boxes.slice(i + 1).filter(([_, b]) => meet(a, b)).map(([other]) => name + ' / ' + other));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module", params=["few", "many"])
def page(request, tmp_path_factory):
    """Three attacks at five levels; ten at thirty-two, with long names; both with sentences below the figure."""
    few = request.param == "few"
    levels = [f"{k}/255" for k in ((2, 4, 8, 12, 16) if few else range(1, 33))]
    names = ["pgd:steps=20", "apgd", "square"] if few else [f"pgd:steps={k},score=margin" for k in range(10)]
    ladder = {
        label: [
            Run(name, {20 * place + turn: place and 1 / 255} if 20 * place + turn < 100 else {})
            for turn, name in enumerate(names)
        ]
        for place, label in enumerate(levels)
    }
    ladder[levels[0]] = [Run(name, dict.fromkeys(range(100))) for name in names]
    folder = build(tmp_path_factory.mktemp("curves") / request.param, ladder, labels=[i % 10 for i in range(100)])
    return write_curve(gather_curve(folder), folder).page


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (740, False), (400, False)])
def test_the_page_is_whole_at_every_width(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    assert browser.errors() == []
    assert browser.run(OVERFLOWING) == []
    assert browser.run(COLLIDING) == []
    assert browser.run(FAINT) == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    shown = "return [...document.querySelectorAll('svg')].filter((svg) => svg.getBoundingClientRect().width).length"
    assert browser.run(shown) == 1


def test_texts_that_collide_are_seen(browser, page):
    browser.open(page)
    browser.run("const t = document.querySelectorAll('svg.curve text'); t[1].setAttribute('y', t[0].getAttribute('y'));"
                "t[1].setAttribute('x', t[0].getAttribute('x')); t[1].setAttribute('text-anchor', 'end')")  # fmt: skip
    assert browser.run(COLLIDING)


def test_it_prints(browser, page, tmp_path):
    browser.open(page, dark=True)
    assert browser.paper(tmp_path / "page.pdf").startswith(b"%PDF-")
