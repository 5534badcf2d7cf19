"""The counter-based generator: independence of the batch, moments, distributions, correlations."""

import math

import pytest
import torch
from scipy import stats

from verigrad.core.seeds import SampleGenerator, derive_seed, seeded

DRAWS = {
    "bits": lambda g, shape: g.bits(*shape),
    "uniform": lambda g, shape: g.uniform(*shape),
    "normal": lambda g, shape: g.normal(*shape),
    "signs": lambda g, shape: g.signs(*shape),
    "integers": lambda g, shape: g.integers(*shape, high=10),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_sample_draws_the_same_in_any_company(draw):
    def three(ids):
        g = seeded(7, "unit", ids)
        return torch.stack([draw(g, (2, 3)) for _ in range(3)], dim=1)

    alone = torch.cat([three([i]) for i in range(6)])
    assert torch.equal(three(range(6)), alone)
    assert torch.equal(three([4, 1, 5]), alone[[4, 1, 5]])
    assert torch.equal(three([2, 2]), alone[[2, 2]])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_global_generator_is_left_alone(draw):
    before = torch.random.get_rng_state()
    draw(seeded(0, "unit", range(4)), (5,))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rows_of_a_generator_stay_at_their_place():
    g = seeded(0, "unit", range(8))
    g.uniform(3)
    part = g[torch.tensor([6, 2])]
    assert len(part) == 2
    assert torch.equal(part.normal(4), g.normal(4)[[6, 2]])
    assert torch.equal(g[2:4].bits(2), g.bits(2)[2:4])


def test_draws_far_down_the_counter_work():
    for counter in (0, 1, 2, 10, 2**31, 2**40):
        assert SampleGenerator(torch.tensor([2**62, -(2**63)]), counter).uniform(3).shape == (2, 3)


def test_run_unit_and_sample_each_change_the_numbers():
    base = seeded(0, "a", [0]).bits(4)
    for other in (seeded(1, "a", [0]), seeded(0, "b", [0]), seeded(0, "a", [1])):
        assert (other.bits(4) != base).all()
    assert derive_seed(0, "a", 1) != derive_seed(0, "a1")
    assert 0 <= derive_seed("x") < 2**63


def many(seed: int = 0, samples: int = 200, length: int = 500, counter: int = 0) -> SampleGenerator:
    g = seeded(seed, "statistics", range(samples))
    g.counter = counter
    return g


@pytest.mark.parametrize("counter", [0, 1, 1000])
def test_uniform(counter: int):
    u = many(counter=counter).uniform(500, dtype=torch.float64).flatten()
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert float(u.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / len(u)))
    assert float(u.var()) == pytest.approx(1 / 12, rel=0.02)


@pytest.mark.parametrize("counter", [0, 1, 1000])
def test_normal(counter: int):
    z = many(counter=counter).normal(500, dtype=torch.float64).flatten()
    assert torch.isfinite(z).all()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(len(z)))
    assert stats.skew(z.numpy()) == pytest.approx(0, abs=0.05)
    assert stats.kurtosis(z.numpy()) == pytest.approx(0, abs=0.1)
    assert float(z.abs().max()) > 3.9  # the tails are there


def test_signs_and_integers():
    signs = many().signs(500)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / math.sqrt(signs.numel())
    counts = torch.bincount(many().integers(500, high=7).flatten(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_every_bit_is_fair():
    bits = many().bits(500).flatten()
    for place in range(64):
        share = float(((bits >> place) & 1).double().mean())
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(len(bits))


def test_neighbours_are_not_correlated():
    """Sample ids, draws and places next to each other; also samples whose seeds differ by one or by the increment."""
    n = 400
    limit = 5 / math.sqrt(n * 100)
    g = many(samples=n)
    a, b = (g.uniform(100, dtype=torch.float64) - 0.5 for _ in range(2))
    pairs = {
        "ids": (a[:-1], a[1:]),
        "draws": (a, b),
        "places": (a[:, :-1], a[:, 1:]),
        "draw and place": (a[:, 1:], b[:, :-1]),
        "id and draw": (a[:-1], b[1:]),
    }
    for step in (1, 2, -7046029254386353131):
        near = SampleGenerator(torch.arange(n) * step).uniform(100, dtype=torch.float64) - 0.5
        pairs[f"seeds {step} apart"] = (near[:-1], near[1:])
        pairs[f"seeds {step} apart, next place"] = (near[:-1, 1:], near[1:, :-1])
    for name, (left, right) in pairs.items():
        assert abs(float((left * right).mean() * 12)) < limit, name


def test_no_number_comes_twice():
    g = many(samples=300)
    bits = torch.cat([g.bits(200).flatten() for _ in range(3)])
    assert len(bits.unique()) == len(bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_uniform_stays_below_one_in_every_type(dtype: torch.dtype):
    u = many(samples=100).uniform(2000, dtype=dtype)
    assert u.dtype == dtype
    assert (u < 1).all()
    assert (u >= 0).all()
    scaled = seeded(0, "unit", range(3)).uniform(50, low=-2.0, high=3.0)
    assert ((scaled >= -2) & (scaled <= 3)).all()


def test_empty():
    g = SampleGenerator(torch.zeros(0, dtype=torch.int64))
    assert g.normal(2, 3).shape == (0, 2, 3)
    assert seeded(0, "unit", []).uniform(4).shape == (0, 4)
