"""The norms behind a step size, against one line of torch, and the record of what was refused."""

import pytest
import torch

from verigrad.solvers import DOPRI5, TSIT5, BatchCoupled, law, solve


@pytest.mark.parametrize("block", [1, 7, 40, 10**9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_norm_does_not_depend_on_its_blocks(monkeypatch, block, dtype):
    monkeypatch.setattr(law, "BLOCK", block)
    a, b = torch.randn(2, 9, 2, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    square = (a.to(wide) / (b.to(wide).abs() + 1)) ** 2

    def ratio(x, y):
        return x.to(wide) / (y.to(wide).abs() + 1)

    own, whole = law.rms(ratio, a, b, shared=False), law.rms(ratio, a, b, shared=True)
    assert own.dtype == wide
    assert own.tolist() == pytest.approx(square.mean((1, 2)).sqrt().tolist(), rel=1e-5)
    assert float(whole) == pytest.approx(float(square.mean().sqrt()), rel=1e-5)


@pytest.mark.parametrize(("ratio", "factor"), [(0.0, 10.0), (1e-9, 10.0), (0.5, 1.0), (0.999, 1.0), (1e9, 0.2)])
def test_the_bounds_of_a_step_are_exact_in_float64(ratio, factor):
    """In float32 a fifth would be off by 1.5e-8."""
    h = torch.tensor([0.3, 7.0], dtype=torch.float64)
    following = law.next_step(h, torch.full_like(h, ratio), law.TORCHDIFFEQ_0_2_5, DOPRI5)
    if ratio == 0.5:  # between the bounds
        factor = 0.9 * 0.5 ** (-1 / 5)
    assert following.tolist() == pytest.approx((h * factor).tolist(), rel=1e-15)


def test_refused_attempts_are_counted_once_before_the_step_that_follows_them():
    calls = []

    def pulses(t, y):
        calls.append(float(t))
        return 9 * (torch.exp(-(((t - 0.3) / 0.02) ** 2)) + torch.exp(-(((t - 0.7) / 0.01) ** 2))) - y

    solution = solve(pulses, torch.ones(1, 1).double(), control=BatchCoupled(rtol=1e-4, atol=1e-4))
    refused = solution.grid.rejections[0]
    assert int((refused > 0).sum()) >= 2
    assert int(refused.sum()) == int(solution.stats.rejected[0])
    assert len(calls) == 2 + 6 * (len(refused) + int(refused.sum()))


def test_the_partner_of_tsit5_is_that_of_its_author():
    """Tsitouras 2011: b̂_7 = 1/66. The order conditions hold for any multiple of the error weights, and so say less."""
    assert TSIT5.b[-1] - TSIT5.error[-1] == pytest.approx(1 / 66, abs=1e-15)


@pytest.mark.parametrize("method", [DOPRI5, TSIT5], ids=lambda m: m.name)
def test_the_middle_of_a_step_is_of_fourth_order(method):
    c, mid = (torch.tensor(v, dtype=torch.float64) for v in (method.c, method.mid))
    for power in range(4):
        assert float(mid @ c**power) == pytest.approx(0.5 ** (power + 1) / (power + 1), abs=1e-12)
