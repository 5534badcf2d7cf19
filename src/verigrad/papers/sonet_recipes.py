"""How the tables of the SONet paper are redone."""

from __future__ import annotations

from collections.abc import Iterator

from verigrad.core.threat import L2, Linf
from verigrad.papers.recipe import Recipe
from verigrad.papers.result import Finding, Measured, Result
from verigrad.papers.sonet import TABLE1, TABLE2, TABLE4
from verigrad.papers.sonet_interventions import interventions
from verigrad.papers.sonet_nets import FROZEN, STRONGEST, cells, further, net, pgd, with_solver
from verigrad.papers.sonet_settings import SETTINGS
from verigrad.papers.sonet_steps import table3
from verigrad.papers.sonet_theorem import theorem
from verigrad.papers.workshop import Workshop

# A gap, in points, that an attack with the right gradient closes.
GAP = 30.0


def table1(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """PGD on SONet, SOBlock and TRADES; and what the paper lacks: frozen grid, batch of one, strongest attack."""
    at = SETTINGS[scale]
    left: dict[tuple[str, ...], dict[str, Measured | None]] = {}
    for row in TABLE1.rows():
        name, channels, attack = row
        one = net(at, name, channels)
        linf, l2 = (workshop.trial(one, threat, n=at.n) for threat in (Linf(eps=at.linf), L2(eps=at.l2)))
        own = {words: pgd(linf.threat, steps) for words, steps in at.steps.items()}
        found: dict[str, Measured | None] = {
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


def _hidden(left: dict[tuple[str, ...], dict[str, Measured | None]]) -> Finding:
    pairs = [
        (_value(found, "Linf 0.031 %"), _value(found, STRONGEST))
        for (name, _, attack), found in left.items()
        if name == "SONet" and attack == "PGD-20"
    ]
    return Finding(
        TABLE1.id,
        "SONet's PGD-20 accuracy is at least 30 points above what the strongest attack leaves",
        all(shown - strongest >= GAP for shown, strongest in pairs),
        "; ".join(f"{shown:.0f} % against {strongest:.0f} %" for shown, strongest in pairs),
    )


def _against_trades(left: dict[tuple[str, ...], dict[str, Measured | None]]) -> Iterator[Finding]:
    """The paper's comparison, as it was measured there and with the strongest attack."""
    shown: dict[str, list[float]] = {}
    strongest: dict[str, list[float]] = {}
    for (name, _, attack), found in left.items():
        kind = "TRADES" if "TRADES" in name else name
        if attack == "PGD-20":
            shown.setdefault(kind, []).append(_value(found, "Linf 0.031 %"))
            strongest.setdefault(kind, []).append(_value(found, STRONGEST))
    for kind in ("SONet", "SOBlock"):
        for words, values in (("PGD-20", shown), ("the strongest attack", strongest)):
            above = min(values[kind]) > max(values["TRADES"])
            holds = above if words == "PGD-20" else not above
            claim = f"Under {words} {kind} leaves {'more' if words == 'PGD-20' else 'no more'} than every TRADES net"
            evidence = f"{_range(values[kind])} against {_range(values['TRADES'])}"
            yield Finding(TABLE1.id, claim, holds, evidence)


def table2(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Solvers and tolerances, for SOBlock and ODENet."""
    at = SETTINGS[scale]
    fixed: list[float] = []
    adaptive: list[float] = []
    frozen: list[float] = []
    for row in TABLE2.rows():
        name, solver = row
        trial = workshop.trial(with_solver(at, name, solver), Linf(eps=at.linf), n=at.n)
        own = {words: pgd(trial.threat, steps) for words, steps in at.steps.items()}
        found: dict[str, Measured | None] = {"natural %": trial.natural()}
        found |= {f"{words} %": trial.surviving(attack) for words, attack in own.items()}
        found |= further(trial, *own.values(), steps=at.further_steps["PGD-20"])
        yield from cells(TABLE2, row, found, at)
        (adaptive if " " in solver else fixed).append(_value(found, "PGD-20 %"))
        if " " in solver:
            frozen.append(_value(found, FROZEN))
    yield Finding(
        TABLE2.id,
        "Every adaptive solver leaves more under PGD-20 than any fixed one",
        min(adaptive) > max(fixed),
        f"adaptive {_range(adaptive)}, fixed {_range(fixed)}",
    )
    yield Finding(
        TABLE2.id,
        "With the grid frozen no adaptive solver leaves more than the best fixed one",
        max(frozen) <= max(fixed),
        f"adaptive, grid frozen: {_range(frozen)}; fixed {_range(fixed)}",
    )


def table4(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """CW-Linf and SPSA on the models of table 1."""
    at = SETTINGS[scale]
    left: dict[str, list[float]] = {}
    shown: dict[str, list[float]] = {}
    for row in TABLE4.rows():
        trial = workshop.trial(net(at, *row), Linf(eps=at.linf), n=at.n)
        found: dict[str, Measured | None] = {
            "natural %": trial.natural(),
            "CW-Linf %": trial.surviving(at.cw),
            "SPSA %": trial.surviving(at.spsa),
        }
        kind = row[0].partition("-")[0]
        found |= further(trial, at.cw, at.spsa, steps=at.further_steps["PGD-20"], ode=kind != "ResNet10")
        yield from cells(TABLE4, row, found, at)
        left.setdefault(kind, []).append(_value(found, "CW-Linf %"))
        shown.setdefault(kind, []).append(trial.surviving(pgd(trial.threat, at.steps["PGD-20"])).value)
    yield Finding(
        TABLE4.id,
        "Under CW-Linf the ODE nets have less left than ResNet10 with TRADES",
        max(left["SONet"] + left["SOBlock"]) < min(left["ResNet10"]),
        "; ".join(f"{name} {_range(values)}" for name, values in left.items()),
    )
    yield Finding(
        TABLE4.id,
        "CW-Linf breaks more of SONet than PGD-20 on cross-entropy does",
        all(cw < plain for cw, plain in zip(left["SONet"], shown["SONet"], strict=True)),
        f"CW-Linf leaves {_range(left['SONet'])}, PGD-20 {_range(shown['SONet'])}",
    )


def _value(found: dict[str, Measured | None], column: str) -> float:
    one = found[column]
    assert one is not None
    return one.value


def _range(values: list[float]) -> str:
    return f"{min(values):.0f} %" if min(values) == max(values) else f"{min(values):.0f} to {max(values):.0f} %"


RECIPES = (
    Recipe(id="sonet/table1", title="PGD on SONet, SOBlock and TRADES", redo=table1),
    Recipe(id="sonet/table2", title="solvers and tolerances", redo=table2),
    Recipe(id="sonet/table3", title="the times that ODENet's solver accepts under attack", redo=table3),
    Recipe(id="sonet/table4", title="CW-Linf and SPSA", redo=table4),
    Recipe(id="sonet/theorem", title="theorem 3.1: norms and eigenvalues along trajectories", redo=theorem),
    Recipe(id="sonet/interventions", title="what hides SONet's gradient: one change at a time", redo=interventions),
)
