"""Implicit methods: stability where explicit ones blow up, and the iteration behind them."""

import pytest
import torch
from systems import column, rotation

from verigrad.solvers import BACKWARD_EULER, EULER, IMPLICIT_MIDPOINT, Fixed, Status, solve
from verigrad.solvers.anderson import fixed_point


def test_a_stiff_problem_is_no_trouble():
    def stiff(t, y):
        return -1e5 * (y - torch.cos(column(t, y)))

    y0 = torch.tensor([[3.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    solution = solve(stiff, y0, method=BACKWARD_EULER, control=Fixed(steps=10))
    assert solution.status.tolist() == [Status.DONE, Status.DONE]
    assert solution.y1.flatten().tolist() == pytest.approx([0.5403] * 4, abs=1e-3)
    explicit = solve(stiff, y0, method=EULER, control=Fixed(steps=10))
    assert float(explicit.y1.abs().max()) > 1e20


def test_implicit_midpoint_keeps_the_norm_of_a_skew_field():
    y0 = torch.tensor([[1.0, 0.0], [0.3, -2.0]], dtype=torch.float64)
    y1 = solve(rotation, y0, t1=20.0, method=IMPLICIT_MIDPOINT, control=Fixed(steps=50)).y1
    assert (y1.norm(dim=1) / y0.norm(dim=1)).tolist() == pytest.approx([1.0, 1.0], abs=1e-7)


def test_a_stage_that_is_not_solved_has_a_status():
    def rough(t, y):
        return 1e6 * torch.sign(torch.sin(1e3 * y))

    y0 = torch.rand(2, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    solution = solve(rough, y0, method=BACKWARD_EULER, control=Fixed(steps=2))
    assert solution.status.tolist() == [Status.NOT_CONVERGED, Status.NOT_CONVERGED]


def test_anderson_solves_linear_systems_in_as_many_steps_as_unknowns():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 6, 6, generator=generator, dtype=torch.float64) * 3
    b = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    truth = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - a, b)
    found = fixed_point(
        lambda z: (a @ z[:, :, None])[:, :, 0] + b, torch.zeros_like(b), memory=6, iterations=20, tolerance=1e-9
    )
    assert float((found.z - truth).abs().max()) < 1e-6
    assert found.iterations <= 10
