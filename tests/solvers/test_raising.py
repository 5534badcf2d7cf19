"""The message of a failed solve names the sample, the time, the step and the likely fix."""

import pytest
import torch
from systems import rotation

from verigrad.solvers import BatchCoupled, Fixed, PerSample, UnsolvedSample, solve_or_raise


def bad_second(t, y):
    return 0 * torch.log(5 - y) - y


Y0 = torch.tensor([[1.0], [9.0], [2.0]])


@pytest.mark.parametrize(
    "control", [PerSample(rtol=0.01, atol=0.01), BatchCoupled(rtol=0.01, atol=0.01), Fixed(steps=3)]
)
def test_it_names_the_sample_and_the_fix(control):
    with pytest.raises(UnsolvedSample, match=r"Sample 1 .*not finite.*Likely fix"):
        solve_or_raise(bad_second, Y0, control=control)


def test_it_names_time_and_step():
    def pole(t, y):
        return 1 / (0.5 - t.reshape(-1, 1)) ** 2 * torch.ones_like(y)

    with pytest.raises(UnsolvedSample, match=r"after t = 0\.4\d*, whose last accepted step was 0\.00"):
        solve_or_raise(pole, torch.ones(2, 1).double(), control=PerSample(rtol=1e-6, atol=1e-6, max_steps=60))


def test_it_gives_the_solution_otherwise():
    assert solve_or_raise(rotation, torch.ones(2, 2)).status.tolist() == [0, 0]


def test_it_names_the_sample_that_fails_on_the_way():
    def late(t, y):
        return torch.where((y > 5) & (t > 0.3), torch.nan, -0.1 * y)

    y0 = torch.tensor([[1.0], [2.0], [9.0]], dtype=torch.float64)
    with pytest.raises(UnsolvedSample, match=r"Sample 2 stopped after t = 0\.[23]"):
        solve_or_raise(late, y0, control=BatchCoupled(rtol=1e-6, atol=1e-6))
    with pytest.raises(UnsolvedSample, match="Sample 2 stopped at the start"):
        solve_or_raise(late, y0, t0=0.5, control=BatchCoupled(rtol=1e-6, atol=1e-6))


def test_it_blames_no_sample_of_a_batch_that_ran_out_of_steps():
    with pytest.raises(UnsolvedSample, match=r"The batch stopped .*too many steps"):
        solve_or_raise(rotation, torch.ones(2, 2), control=BatchCoupled(rtol=1e-8, atol=1e-8, max_steps=2))
