"""Numbers as text: as much precision as n carries, and never a number that is none."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigrad.reports import numbers


@pytest.mark.parametrize(
    ("share", "n", "text"),
    [
        (0.63, 200, "63 %"),
        (0.634, 1000, "63.4 %"),
        (0.005, 200, "<1 %"),
        (0.995, 200, ">99 %"),
        (0.0004, 10_000, "<0.1 %"),
        (0.9996, 10_000, ">99.9 %"),
        (0.0, 200, "0 %"),
        (1.0, 200, "100 %"),
        (None, 200, "—"),
        (math.nan, 200, "—"),
        (math.inf, 200, "—"),
    ],
)
def test_percent(share, n, text):
    assert numbers.percent(share, n) == text


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_only_all_and_nothing_read_as_such(pair):
    k, n = pair
    text = numbers.percent(k / n, n)
    assert (text in ("0 %", "0.0 %")) == (k == 0)
    assert (text in ("100 %", "100.0 %")) == (k == n)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([50, 5000]))
def test_intervals_are_rounded_outward(a, b, n):
    low, high = sorted((a, b))
    ends = numbers.interval((low, high), n).removesuffix(" %").split("–")
    assert float(ends[0]) <= 100 * low + 1e-6
    assert float(ends[1]) >= 100 * high - 1e-6


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((0.0001, 0.0275), "0–3 %"),
        ((0.07, 0.09), "7–9 %"),
        ((-0.021, 0.05), "−3 to 5 %"),
        ((None, 0.1), "—"),
        (None, "—"),
    ],
)
def test_interval(ends, text):
    assert numbers.interval(ends, 200) == text


@pytest.mark.parametrize(
    ("call", "value", "text"),
    [
        (numbers.stated, 0.6237, "62.37 %"),
        (numbers.stated, 0.62, "62 %"),
        (numbers.stated, None, "—"),
        (numbers.points, 0.625, "62 points"),
        (numbers.points, 0.012, "1 point"),
        (numbers.points, -0.02, "−2 points"),
        (numbers.points, 0.001, "<1 point"),
        (numbers.points, 0.0, "0 points"),
        (numbers.points, math.nan, "—"),
        (numbers.count, 12345, "12,345"),
        (numbers.count, None, "—"),
        (numbers.compact, 940, "940"),
        (numbers.compact, 48_300, "48.3 k"),
        (numbers.compact, 1_250_000, "1.25 M"),
        (numbers.compact, 2e9, "2 G"),
        (numbers.compact, math.nan, "—"),
        (numbers.quantity, 0.12, "0.12"),
        (numbers.quantity, -0.03, "−0.03"),
        (numbers.quantity, -0.0, "0"),
        (numbers.quantity, 1.3e-7, "1.3e-07"),
        (numbers.quantity, math.inf, "—"),
        (numbers.seconds, 0.42, "0.4 s"),
        (numbers.seconds, 0.003, "<0.1 s"),
        (numbers.seconds, 12.4, "12 s"),
        (numbers.seconds, 59.7, "1 min 0 s"),
        (numbers.seconds, 3725, "1 h 2 min"),
        (numbers.seconds, None, "—"),
    ],
)
def test_other_numbers(call, value, text):
    assert call(value) == text


def test_the_count_behind_a_share():
    assert numbers.tally(0.63, 200) == "126 of 200"
    assert numbers.tally(None, 200) == "—"


def test_a_truth_value_is_no_number():
    assert not numbers.is_number(True)
