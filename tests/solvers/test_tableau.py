"""Order conditions of every method, from the rooted trees (Hairer, Nørsett & Wanner I, Table 2.2)."""

import pytest
import torch
from systems import WRONG

from verigrad.solvers import BOSH3, DOPRI5, EULER, HEUN2, MIDPOINT, RK4, RK4_38, TSIT5, Tableau

METHODS = [EULER, MIDPOINT, HEUN2, BOSH3, RK4, RK4_38, DOPRI5, TSIT5]
EMBEDDED = [HEUN2, BOSH3, DOPRI5, TSIT5]


def conditions(method: Tableau, b: tuple[float, ...], order: int) -> list[float]:
    """Σ_j b_j Φ_j(tree) − 1/γ(tree) for all trees up to the order (at most 4)."""
    s = method.stages
    a = torch.zeros(s, s, dtype=torch.float64)
    for i, row in enumerate(method.a):
        a[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    c, w = torch.tensor(method.c, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    trees = {
        1: [(torch.ones_like(c), 1)],
        2: [(c, 2)],
        3: [(c**2, 3), (a @ c, 6)],
        4: [(c**3, 4), (c * (a @ c), 8), (a @ c**2, 12), (a @ (a @ c), 24)],
    }
    return [float(w @ phi - 1 / gamma) for p in range(1, min(order, 4) + 1) for phi, gamma in trees[p]]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_solution_meets_the_order_conditions(method):
    assert max(map(abs, conditions(method, method.b, method.order))) < 1e-14


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_stage_times_are_the_row_sums(method):
    assert [sum(row) for row in method.a] == pytest.approx(list(method.c), abs=1e-14)


@pytest.mark.parametrize("method", EMBEDDED, ids=lambda m: m.name)
def test_partner_is_one_order_lower(method):
    partner = tuple(b - e for b, e in zip(method.b, method.error, strict=True))
    lower = method.order - 1
    assert max(map(abs, conditions(method, partner, lower))) < 1e-14
    if lower < 4:
        assert max(map(abs, conditions(method, partner, lower + 1))) > 1e-3


def test_a_wrong_method_fails_the_order_conditions():
    assert max(map(abs, conditions(WRONG, WRONG.b, WRONG.order))) > 1e-3


@pytest.mark.parametrize("method", EMBEDDED, ids=lambda m: m.name)
def test_interpolant_ends_where_the_step_does(method):
    rows = torch.tensor(method.interpolant, dtype=torch.float64)
    at_end = rows.sum(1)
    at_middle = rows @ torch.tensor([0.5**p for p in (1, 2, 3, 4)], dtype=torch.float64)
    assert at_end.tolist() == pytest.approx(list(method.b), abs=1e-13)
    assert at_middle.tolist() == pytest.approx(list(method.mid), abs=1e-13)


def test_only_embedded_pairs_of_shampine_kind_reuse_the_last_stage():
    assert {m.name for m in METHODS if m.last_is_first} == {"bosh3", "dopri5", "tsit5"}
