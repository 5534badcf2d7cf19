"""How the tables of the SONet paper are redone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from verigrad.core.threat import L2, Linf
from verigrad.papers.recipe import Recipe, Redo, cost_by_scale
from verigrad.papers.result import Finding, Measured, Result
from verigrad.papers.sonet import TABLE1, TABLE2, TABLE4
from verigrad.papers.sonet_interventions import interventions
from verigrad.papers.sonet_nets import (
    FROZEN,
    GAP,
    NO_GAP,
    STRONGEST,
    cells,
    further,
    net,
    pgd,
    span,
    training_loss,
    value,
    with_solver,
)
from verigrad.papers.sonet_settings import SETTINGS
from verigrad.papers.sonet_steps import table3
from verigrad.papers.sonet_theorem import theorem
from verigrad.papers.workshop import Workshop

Row = tuple[str, ...]
Found = dict[str, Measured | None]


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """PGD on SONet, SOBlock and TRADES; and what the paper lacks: frozen grid, batch of one, strongest attack."""
    at = SETTINGS[scale]
    left: dict[Row, Found] = {}
    for row in TABLE1.rows():
        name, channels, attack = row
        one = net(at, name, channels)
        linf, l2 = (workshop.trial(one, threat, n=at.n) for threat in (Linf(eps=at.linf), L2(eps=at.l2)))
        own = {words: pgd(linf.threat, steps) for words, steps in at.steps.items()}
        found: Found = {
            "natural %": linf.natural(),
            "Linf 0.031 %": linf.surviving(own[attack]),
            "L2 0.5 %": l2.surviving(pgd(l2.threat, at.steps[attack])),
        }
        ode = not name.startswith("ResNet")
        found |= further(linf, *own.values(), steps=at.further_steps[attack], ode=ode)
        yield from cells(TABLE1, row, found, at)
        left[row] = found
    yield _hidden(left)
    yield from _against_trades(left)


def _hidden(left: Mapping[Row, Found]) -> Finding:
    rows = [found for (name, _, attack), found in left.items() if name == "SONet" and attack == "PGD-20"]
    pairs = [(value(found, "Linf 0.031 %"), value(found, STRONGEST)) for found in rows]
    holds = all(shown - strongest >= GAP for shown, strongest in pairs)
    natural = " and ".join(f"{value(found, 'natural %'):.0f} %" for found in rows)
    return Finding(
        TABLE1.id,
        "SONet's PGD-20 accuracy is at least 30 points above what the strongest attack leaves, at both widths",
        holds,
        "; ".join(f"{shown:.0f} % against {strongest:.0f} %" for shown, strongest in pairs),
        "" if holds else f"they classify {natural} rightly without an attack, and what is not right cannot be hidden",
    )


def _against_trades(left: Mapping[Row, Found]) -> Iterator[Finding]:
    """The paper's comparison, as it was measured there and with the strongest attack."""
    shown: dict[str, list[float]] = {}
    strongest: dict[str, list[float]] = {}
    printed: list[float] = []
    for (name, channels, attack), found in left.items():
        kind = "TRADES" if "TRADES" in name else name
        if attack == "PGD-20":
            shown.setdefault(kind, []).append(value(found, "Linf 0.031 %"))
            strongest.setdefault(kind, []).append(value(found, STRONGEST))
            if kind == "TRADES":
                one = TABLE1.printed(name, channels, attack, column="Linf 0.031 %")
                printed += [one] if isinstance(one, float) else []
    why = f"TRADES leaves {span(shown['TRADES'])} here and {span(printed)} in the paper"
    for kind in ("SONet", "SOBlock"):
        above = min(shown[kind]) > max(shown["TRADES"])
        evidence = f"{span(shown[kind])} against {span(shown['TRADES'])}"
        claim = f"Under PGD-20 {kind} leaves more than every TRADES net"
        yield Finding(TABLE1.id, claim, above, evidence, "" if above else why)
        below = max(strongest[kind]) < min(strongest["TRADES"])
        evidence = f"{span(strongest[kind])} against {span(strongest['TRADES'])}"
        yield Finding(
            TABLE1.id, f"Under the strongest attack {kind} leaves less than every TRADES net", below, evidence
        )


def table2(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Solvers and tolerances, for SOBlock and ODENet."""
    at = SETTINGS[scale]
    left: dict[Row, Found] = {}
    losses: dict[str, list[float]] = {}
    for row in TABLE2.rows():
        name, solver = row
        one = with_solver(at, name, solver)
        trial = workshop.trial(one, Linf(eps=at.linf), n=at.n)
        own = {words: pgd(trial.threat, steps) for words, steps in at.steps.items()}
        found: Found = {"natural %": trial.natural()}
        found |= {f"{words} %": trial.surviving(attack) for words, attack in own.items()}
        found |= further(trial, *own.values(), steps=at.further_steps["PGD-20"])
        yield from cells(TABLE2, row, found, at)
        left[row] = found
        losses.setdefault(name, []).append(training_loss(workshop, one))
    for name in losses:
        yield from _only_adaptive(name, left, losses)


def _only_adaptive(name: str, left: Mapping[Row, Found], losses: Mapping[str, list[float]]) -> Iterator[Finding]:
    """The claim of section 6.1 for one model, and what is left of it when the grid is frozen."""

    def of(column: str, *, adaptive: bool) -> list[float]:
        return [value(found, column) for (n, s), found in left.items() if n == name and (" " in s) == adaptive]

    plain, fixed, frozen = of("PGD-20 %", adaptive=True), of("PGD-20 %", adaptive=False), of(FROZEN, adaptive=True)
    hidden = ", ".join(
        f"{solver} {value(found, 'PGD-20 %') - value(found, STRONGEST):.0f}"
        for (n, solver), found in left.items()
        if n == name and " " in solver
    )
    ranges = "; ".join(f"{n} {min(found):.2g} to {max(found):.2g}" for n, found in losses.items())
    holds = min(plain) > max(fixed)
    why = f"of what the strongest attack breaks PGD-20 hides, in points, {hidden}; training losses are {ranges}"
    yield Finding(
        TABLE2.id,
        f"{name}: every adaptive solver leaves more under PGD-20 than any fixed one",
        holds,
        f"adaptive {span(plain)}, fixed {span(fixed)}",
        "" if holds else why,
    )
    yield Finding(
        TABLE2.id,
        f"{name}: with the grid frozen adaptive solvers leave no more than fixed ones, within {NO_GAP:.0f} points",
        max(frozen) <= max(fixed) + NO_GAP,
        f"adaptive with the grid frozen {span(frozen)}, fixed {span(fixed)}",
    )


def table4(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """CW-Linf and SPSA on the models of table 1."""
    at = SETTINGS[scale]
    left: dict[str, list[float]] = {}
    shown: dict[str, list[float]] = {}
    for row in TABLE4.rows():
        trial = workshop.trial(net(at, *row), Linf(eps=at.linf), n=at.n)
        found: Found = {
            "natural %": trial.natural(),
            "CW-Linf %": trial.surviving(at.cw),
            "SPSA %": trial.surviving(at.spsa),
        }
        kind = row[0].partition("-")[0]
        found |= further(trial, at.cw, at.spsa, steps=at.further_steps["PGD-20"], ode=kind != "ResNet10")
        yield from cells(TABLE4, row, found, at)
        left.setdefault(kind, []).append(value(found, "CW-Linf %"))
        shown.setdefault(kind, []).append(trial.surviving(pgd(trial.threat, at.steps["PGD-20"])).value)
    x = workshop.images(at.data, "test", at.n).x
    border = 100 * float(((x == 0) | (x == 1)).float().mean())
    why = f"{border:.0f} % of the pixels are 0 or 1, where tanh is flat, so that CW-Linf hardly moves them"
    below = max(left["SONet"] + left["SOBlock"]) < min(left["ResNet10"])
    yield Finding(
        TABLE4.id,
        "Under CW-Linf the ODE nets have less left than ResNet10 with TRADES",
        below,
        "; ".join(f"{name} {span(values)}" for name, values in left.items()),
        "" if below else why,
    )
    for kind in ("SONet", "SOBlock"):
        more = all(cw < plain for cw, plain in zip(left[kind], shown[kind], strict=True))
        yield Finding(
            TABLE4.id,
            f"CW-Linf breaks more of {kind} than PGD-20 on cross-entropy does",
            more,
            f"CW-Linf leaves {span(left[kind])}, PGD-20 {span(shown[kind])}",
            "" if more else why,
        )


def _recipe(what: str, title: str, redo: Redo, minutes: int) -> Recipe:
    needs = {"gpu": "CIFAR-10", "paper": "CIFAR-10"}
    return Recipe(id=f"sonet/{what}", title=title, redo=redo, cost=cost_by_scale(f"{minutes} min"), needs=needs)


RECIPES = (
    _recipe("table1", "PGD on SONet, SOBlock and TRADES", table1, 7),
    _recipe("table2", "solvers and tolerances", table2, 10),
    _recipe("table3", "the times that ODENet's solver accepts under attack", table3, 1),
    _recipe("table4", "CW-Linf and SPSA", table4, 3),
    Recipe(
        id="sonet/theorem",
        title="theorem 3.1: norms and eigenvalues along trajectories",
        redo=theorem,
        cost={"smoke": "seconds", "cpu": "1 min", "gpu": "as cpu", "paper": "as cpu"},
    ),
    _recipe("interventions", "what hides SONet's gradient: one change at a time", interventions, 8),
)
