"""Table 3 of the SONet paper: the times that ODENet's solver accepts while an attack climbs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from verigrad import catalog
from verigrad.core.classifier import device_of
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf, Threat
from verigrad.data.images import Images
from verigrad.models.twin import ode_blocks
from verigrad.papers.result import Finding, Measured, Result, Series, Status
from verigrad.papers.sonet import TABLE3
from verigrad.papers.sonet_nets import cells, further, pgd, with_solver
from verigrad.papers.sonet_settings import SETTINGS, Setting
from verigrad.papers.workshop import Workshop

# How far an accepted time may lie from what is printed.
TIMES_BAND = 0.02
FIGURE = "the first step along an attack"


def table3(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """The times of ODENet's first block on the first batch of 100; which batch and block the paper shows it does not
    say. One attack gives all rows of a tolerance, since its first steps are those of a shorter one."""
    at = SETTINGS[scale]
    images = workshop.images(at.data, "test", min(at.n, 100))
    solvers = tuple(dict.fromkeys(solver for solver, _ in TABLE3.rows()))
    spans: list[float] = []
    for solver in solvers:
        one = with_solver(at, "ODENet", solver)
        workshop.tell(f"steps of {one.model} along an attack")
        along = accepted(workshop.net(one), images, Linf(eps=at.linf), max(at.iterations.values()))
        for words in TABLE3.rows():
            if words[0] == solver:
                yield _times(words, along[at.iterations[words[1]]], at)
        first = tuple(times[1] for times in along)
        spans.append(max(first) - min(first))
        steps = tuple(map(float, range(len(first))))
        y_label = "end of the first step, t in [0, 1]"
        yield Series(TABLE3.id, FIGURE, solver, steps, first, "steps of PGD", y_label)
        yield from _accuracy(workshop, solver, at)
    yield Finding(
        TABLE3.id,
        "The accepted times move as the attack climbs, and more so at a larger tolerance",
        min(spans) > 0 and spans[0] > spans[-1],
        "; ".join(f"{solver}: by {span:.4f}" for solver, span in zip(solvers, spans, strict=True)),
    )


def accepted(model: nn.Module, images: Images, threat: Threat, steps: int) -> tuple[tuple[float, ...], ...]:
    """The times that the first block's solver accepts for the whole batch, on the images and after each step of PGD:
    where the steps start, and 1, the end of the interval, which the last step may pass."""
    block = ode_blocks(model)[0]
    device = device_of(model)
    x, y = images.x.to(device), images.y.to(device)
    seen: list[tuple[float, ...]] = []
    attack = catalog.build("attack", pgd(threat, steps))
    block.watch = lambda walk: seen.append((*walk.grid.t[0].tolist(), block.solver.t1))
    try:
        attack(model, x, y, threat, generator=seeded(0, "table3", range(len(x)), device))
    finally:
        block.watch = None
    return tuple(seen)


def _times(row: tuple[str, ...], times: tuple[float, ...], at: Setting) -> Result:
    printed = TABLE3.printed(*row, column="times")
    assert isinstance(printed, tuple)
    near = len(printed) == len(times)
    near = near and max(abs(a - b) for a, b in zip(times, printed, strict=True)) <= TIMES_BAND
    status, reason = (Status.MATCH, "") if near else (Status.DIFFERS, at.why or at.protocol)
    return Result(TABLE3.id, row, "times", printed, times, TIMES_BAND, status, reason, at.protocol)


def _accuracy(workshop: Workshop, solver: str, at: Setting) -> Iterator[Result]:
    """What the attack of the table leaves, beside the columns that the paper lacks."""
    trial = workshop.trial(with_solver(at, "ODENet", solver), Linf(eps=at.linf), n=at.n)
    own = {words: pgd(trial.threat, steps) for words, steps in at.steps.items()}
    found: dict[str, Measured | None] = {"PGD-20 %": trial.surviving(own["PGD-20"])}
    found |= further(trial, *own.values(), steps=at.further_steps["PGD-20"])
    yield from cells(TABLE3, (solver, "20"), found, at)
