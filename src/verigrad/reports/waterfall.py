"""What each attack leaves: robust accuracy after one attack after the other, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from verigrad.reports.numbers import percent
from verigrad.reports.svg import Axis, circle, drawable, line, picture, rect, row, shorten, text
from verigrad.reports.words import STAGES


class Step(NamedTuple):
    """One attack.

    `remaining` in [0, 1] is the accuracy that this attack and all before it leave, `alone` the one that the claim's
    attack and this one would leave; `hover` is what a pointer resting on the row is told.
    """

    stage: str
    name: str
    remaining: float | None
    alone: float | None
    added: int
    attempted: int
    hover: str


class _Frame(NamedTuple):
    """Where the columns stand. In a narrow picture a row's label stands above its bar."""

    wide: bool
    width: float
    axis: Axis
    height: float
    drop: float
    n: int

    @classmethod
    def of(cls, width: float, n: int) -> _Frame:
        if width > 600:
            return cls(True, width, Axis(324.0, width - 130.0), 26.0, 13.0, n)
        return cls(False, width, Axis(0.0, width - 96.0), 42.0, 28.0, n)


def waterfall(
    steps: Sequence[Step],
    *,
    clean: float | None,
    claimed: float | None,
    claim_text: str,
    n: int,
    width: float,
    name: str,
) -> Markup:
    """Robust accuracy that remains after each attack in order; the strong end of a bar is what that attack broke.

    Args:
        clean: accuracy without an attack; where the first bar ends.
        claimed: where a line marks the claim, labelled `claim_text`.
        n: samples, for the precision of the percents.
        width: below 600 units the narrow layout is drawn.
        name: makes the ids of the figure unique on its page.
    """
    frame = _Frame.of(width, n)
    y, before, stage = 42.0, clean, ""
    body = [row(_level(frame, y, "no attack", None, clean), hover="Accuracy without an attack", look="row")]
    y += frame.height
    for step in steps:
        if step.stage != stage:
            stage, y = step.stage, y + 12
            heading = STAGES.get(stage, stage)
            told = heading if frame.wide else heading.partition(":")[0]
            body.append(text(0, y + 11, told, f"heading stage-{_known(stage)}"))
            y += 22
        idle = " idle" if step.attempted == 0 else ""
        body.append(row(_level(frame, y, step.name, step, before), hover=step.hover, look=f"row{idle}"))
        before = step.remaining if drawable(step.remaining) else before
        y += frame.height
    parts = [*frame.axis.drawn(36, y + 4), *_claim(frame, claimed, claim_text, y + 4), *body]
    desc = (
        f"From {percent(clean, n)} without an attack to {percent(before, n)} after {len(steps)} attacks, claimed "
        f"{claim_text}. The table below has every number."
    )
    title = "What each attack leaves"
    return picture(width, y + 24, parts, name=name, look="figure", title=title, desc=desc)


def _known(stage: str) -> str:
    """A stage as part of a CSS class; anything that is no stage is drawn as an intervention."""
    return stage if stage in STAGES else "intervention"


def _claim(frame: _Frame, claimed: float | None, claim_text: str, bottom: float) -> list[str]:
    """The headings of the number columns, and the line at the claim."""
    parts = [text(frame.width, 20, "new" if frame.wide else "left, new", "tick", "end")]
    if frame.wide:
        parts.append(text(frame.axis.x1 + 12, 20, "left", "tick"))
    if drawable(claimed):
        x = frame.axis.at(claimed)
        # The label leans inward, so that it stays inside the picture at either end of the axis.
        lean = "end" if x > frame.axis.x1 - 60 else "start" if x < frame.axis.x0 + 50 else "middle"
        parts.append(line(x, 26, x, bottom, "claim-line"))
        parts.append(text(x, 20, f"claimed {claim_text}", "claim-label", lean))
    return parts


def _level(frame: _Frame, y: float, label: str, step: Step | None, before: float | None) -> list[str]:
    """One row: its label, what is left as a soft bar, what this attack took as a strong one, and both as numbers."""
    axis, middle = frame.axis, y + frame.drop
    left = before if step is None else step.remaining
    if frame.wide:
        parts = [text(axis.x0 - 12, middle + 4.5, shorten(label, axis.x0 - 22), "label", "end")]
    else:
        parts = [text(0, y + 14, shorten(label, frame.width), "label")]
    parts.append(rect(axis.x0, middle - 7, axis.x1 - axis.x0, 14, "track"))
    if drawable(left):
        parts.append(rect(axis.x0, middle - 7, axis.at(left) - axis.x0, 14, "left"))
    if step and step.added and drawable(before) and drawable(left):
        lost = max(axis.at(before) - axis.at(left), 1.5)
        parts.append(rect(axis.at(left), middle - 7, lost, 14, f"lost stage-{_known(step.stage)}"))
    if step and step.stage == "intervention" and step.attempted and drawable(step.alone):
        parts.append(circle(axis.at(step.alone), middle, 4, "alone"))
    parts.append(text(axis.x1 + 12, middle + 4.5, percent(left, frame.n), "value"))
    if step:
        told = "idle" if not step.attempted else f"{step.added:,}"
        parts.append(text(frame.width, middle + 4.5, told, f"value {'strong' if step.added else 'faint'}", "end"))
    return parts
