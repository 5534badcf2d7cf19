"""Numbers as text, in one place, so that every report says the same thing with the same honesty.

A share of n samples comes in steps of 1/n: below a thousand samples a decimal of a percent would be noise, so whole
percents are printed, and from a thousand on one decimal. Rounding never reaches 0 % or 100 % by itself ("<1 %",
">99 %"), intervals are rounded outward, and what is missing or not finite is a dash, never a number.
"""

from __future__ import annotations

import math

DASH = "–"
MISSING = "—"
MINUS = "−"


def is_number(value: object) -> bool:
    """A finite int or float; True and False are not numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def decimals(n: int | None) -> int:
    """Decimals of a percent that n samples can carry."""
    return 1 if n is not None and n >= 1000 else 0


def percent(share: float | None, n: int | None = None) -> str:
    """A share in [0, 1] of n samples: "63 %", "<1 %", ">99 %"; from n = 1000 on "63.4 %"."""
    if share is None or not is_number(share):
        return MISSING
    places = decimals(n)
    step = 10.0**-places
    text = f"{100 * share:.{places}f}"
    if share > 0 and float(text) == 0:
        return f"<{step:g} %"
    if share < 1 and float(text) == 100:
        return f">{100 - step:g} %"
    return f"{text} %"


def stated(share: float | None) -> str:
    """A share that somebody else printed, with the digits they gave, up to two decimals of a percent: "62.37 %"."""
    if share is None or not is_number(share):
        return MISSING
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def interval(ends: tuple[float | None, float | None] | list[float | None] | None, n: int | None = None) -> str:
    """A confidence interval in percent, its ends rounded outward: "0–3 %"; "−2 to 5 %" where an end is negative."""
    if ends is None or len(ends) != 2 or not all(is_number(end) for end in ends):
        return MISSING
    low, high = (float(end) for end in ends if end is not None)
    scale = 10 ** decimals(n)
    # The slack keeps 0.07 * 100 = 7.000000000000001 from being rounded up to 8.
    bottom = math.floor(100 * low * scale + 1e-9) / scale
    top = math.ceil(100 * high * scale - 1e-9) / scale
    texts = [f"{end:.{decimals(n)}f}".replace("-", MINUS) for end in (bottom + 0.0, top + 0.0)]
    return f"{texts[0]} to {texts[1]} %" if bottom < 0 else f"{texts[0]}{DASH}{texts[1]} %"


def points(gap: float | None, n: int | None = None) -> str:
    """A difference of two shares, in percentage points: "62 points"."""
    if gap is None or not is_number(gap):
        return MISSING
    text = f"{100 * gap:.{decimals(n)}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
        return f"<{10.0 ** -decimals(n):g} point" if gap > 0 else f"{text} points"
    return f"{text.replace('-', MINUS)} point" + ("" if text in ("1", "-1") else "s")


def tally(share: float | None, n: int) -> str:
    """The count behind a share of n samples: "126 of 200"."""
    return MISSING if share is None or not is_number(share) else f"{count(round(share * n))} of {count(n)}"


def count(value: float | None) -> str:
    """A whole number: "12,345"."""
    return MISSING if value is None or not is_number(value) else f"{round(value):,}".replace("-", MINUS)


def compact(value: float | None) -> str:
    """A large count to three digits: "940", "48.3 k", "1.25 M"."""
    if value is None or not is_number(value):
        return MISSING
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if unit == 'k' else size):.3g} {unit}"
    return count(value)


def quantity(value: float | None) -> str:
    """Any measured value to three digits: "0.12", "1.3e-07"."""
    if value is None or not is_number(value):
        return MISSING
    return f"{value + 0.0:.3g}".replace("-", MINUS, 1) if value < 0 else f"{value + 0.0:.3g}"


def seconds(value: float | None) -> str:
    """A duration: "0.4 s", "12 s", "3 min 5 s", "1 h 2 min"."""
    if value is None or not is_number(value) or value < 0:
        return MISSING
    if value < 9.95:
        return f"{value:.1f} s" if value >= 0.05 or value == 0 else "<0.1 s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
