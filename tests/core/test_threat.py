"""Threats against independent oracles: quadratic programming by bisection, SciPy, and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from controls import best_l2, best_linf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.core.threat import L0, L2, Linf, Threat, parse_threat

THREATS = [Linf(eps=0.1), Linf(eps=3.0), L2(eps=0.4), L2(eps=9.0), L0(pixels=3), L0(pixels=99)]
NONE = [Linf(eps=0.0), L2(eps=0.0), L0(pixels=0)]


def images(n: int = 40, seed: int = 0, spread: float = 1.0, dtype: torch.dtype = torch.float32):
    """Images with many pixels exactly on the border, and wild points to be projected."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, 3, 4, generator=draw, dtype=torch.float64)
    x = torch.where(x < 0.2, 0.0, torch.where(x > 0.8, 1.0, x)).to(dtype)
    return x, x + spread * torch.randn(x.shape, generator=draw, dtype=torch.float64).to(dtype)


def nearest_l2(x: np.ndarray, wild: np.ndarray, eps: float) -> np.ndarray:
    """The KKT point d = clip(g/(1 + λ)) with λ ≥ 0 found by bisection, in float64."""

    def move(scale: float) -> np.ndarray:
        return np.clip(scale * (wild - x), -x, 1 - x)

    if np.linalg.norm(move(1.0)) <= eps:
        return x + move(1.0)
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(move(middle)) < eps else (low, middle)
    return x + move(low)


@pytest.mark.parametrize("threat", THREATS + NONE, ids=str)
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0, 1e4])
def test_projection_lies_inside_and_is_idempotent(threat: Threat, spread: float):
    x, wild = images(spread=spread)
    once = threat.project(wild, x)
    assert threat.contains(once, x).all()
    assert torch.equal(threat.project(x, x), x)
    assert torch.allclose(threat.project(once, x), once, atol=2e-7)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_point_inside_stays_where_it_is(threat: Threat):
    x, _ = images()
    inside = threat.sample(x, seeded(1, "inside", range(len(x))))
    assert torch.allclose(threat.project(inside, x), inside, atol=1e-7)


def test_l2_keeps_a_point_well_inside_ball_and_box_bit_for_bit():
    x = torch.full((1, 1, 2, 2), 0.5)
    assert torch.equal(L2(eps=0.1).project(x + 0.01, x), x + 0.01)


@pytest.mark.parametrize("eps", [1e-3, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("spread", [0.05, 0.5, 20.0])
def test_l2_projection_is_the_nearest_point_by_bisection(eps: float, spread: float):
    x, wild = images(spread=spread, dtype=torch.float64)
    ours = L2(eps=eps).project(wild, x)
    for mine, start, goal in zip(ours, x, wild, strict=True):
        exact = nearest_l2(start.flatten().numpy(), goal.flatten().numpy(), eps)
        assert np.abs(mine.flatten().numpy() - exact).max() < 1e-9


def test_l2_projection_is_the_nearest_point_by_scipy():
    x, wild = images(n=3, spread=0.6, dtype=torch.float64)
    eps = 0.7
    ours = L2(eps=eps).project(wild, x).flatten(1).numpy()
    for mine, start, goal in zip(ours, x.flatten(1).numpy(), wild.flatten(1).numpy(), strict=True):
        found = minimize(
            lambda p, goal=goal: ((p - goal) ** 2).sum(),
            start,
            jac=lambda p, goal=goal: 2 * (p - goal),
            bounds=[(0, 1)] * len(start),
            constraints=[
                {
                    "type": "ineq",
                    "fun": lambda p, start=start: eps**2 - ((p - start) ** 2).sum(),
                    "jac": lambda p, start=start: -2 * (p - start),
                }
            ],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert found.success
        assert np.abs(mine - found.x).max() < 1e-5


def test_l2_projection_is_not_clipping_after_the_ball():
    """A control for the tests above: the usual short cut lands elsewhere."""
    x, wild = images(spread=0.6, dtype=torch.float64)
    direction = wild - x
    length = direction.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
    short_cut = (x + direction * (0.7 / length).clamp(max=1)).clamp(0, 1)
    assert (short_cut - L2(eps=0.7).project(wild, x)).abs().max() > 0.01


@settings(max_examples=150, deadline=None)
@given(
    pixels=st.lists(
        st.tuples(
            st.floats(0, 1, width=32),
            st.floats(-1e6, 1e6, width=32, allow_nan=False),
        ),
        min_size=1,
        max_size=7,
    ),
    eps=st.floats(0, 5),
)
def test_l2_projection_of_anything(pixels: list[tuple[float, float]], eps: float):
    x = torch.tensor([[p[0] for p in pixels]]).reshape(1, 1, 1, -1)
    wild = torch.tensor([[p[1] for p in pixels]]).reshape(1, 1, 1, -1)
    threat = L2(eps=eps)
    ours = threat.project(wild, x)
    assert threat.contains(ours, x).all()
    exact = nearest_l2(x.double().flatten().numpy(), wild.double().flatten().numpy(), eps)
    # Compared by how far the goal is left, relative to the way there: float32 pixels, goals up to 1e6 away.
    left = np.linalg.norm(ours.double().flatten().numpy() - wild.double().flatten().numpy())
    best = np.linalg.norm(exact - wild.double().flatten().numpy())
    assert left <= best + 1e-6 * (1 + best)


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    wild=st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    eps=st.floats(0, 2),
)
def test_linf_projection_is_the_nearest_point(x: list[float], wild: list[float], eps: float):
    ours = Linf(eps=eps).project(torch.tensor(wild).reshape(1, 1, 2, 2), torch.tensor(x).reshape(1, 1, 2, 2))
    low, high = np.maximum(np.array(x) - eps, 0), np.minimum(np.array(x) + eps, 1)
    assert np.allclose(ours.flatten().numpy(), np.clip(wild, low, high), atol=2e-7)


@pytest.mark.parametrize("pixels", [0, 1, 2, 4, 9])
def test_l0_projection_by_brute_force(pixels: int):
    draw = torch.Generator().manual_seed(pixels)
    x = torch.rand(12, 2, 2, 2, generator=draw)
    wild = x + torch.randn(x.shape, generator=draw)
    ours = L0(pixels=pixels).project(wild, x)
    assert (L0(pixels=pixels).distance(ours, x) <= pixels).all()
    boxed = wild.clamp(0, 1)
    for mine, start, goal, free in zip(ours, x, wild, boxed, strict=True):
        best = math.inf
        for chosen in itertools.combinations(range(4), min(pixels, 4)):
            mask = torch.zeros(4, dtype=torch.bool)
            mask[list(chosen)] = True
            candidate = torch.where(mask.reshape(1, 2, 2), free, start)
            best = min(best, float((candidate - goal).double().square().sum()))
        assert float((mine - goal).double().square().sum()) <= best + 1e-6


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.4)], ids=str)
@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_steepest_attains_the_dual_norm(threat: Threat, scale: float):
    """⟨g, steepest(g)⟩ = dual_norm(g) with a step of unit length, for saturated and for exploding gradients."""
    g = (torch.randn(30, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale).float()
    step = threat.steepest(g)
    zero = torch.zeros_like(g)
    # Below 1e-38 float32 loses digits.
    tight = 1e-5 if scale > 1e-36 else 1e-2
    assert torch.allclose(threat.distance(step, zero), torch.ones(30, dtype=torch.float64), rtol=tight)
    gain = (g.double() * step.double()).flatten(1).sum(1)
    assert torch.allclose(gain / scale, threat.dual_norm(g.double()) / scale, rtol=tight)


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.4), L0(pixels=4)], ids=str)
def test_no_unit_step_beats_the_dual_norm(threat: Threat):
    g = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = torch.randn(500, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if isinstance(threat, L0):
        v = threat.project(v.clamp(-1, 1) * 0.5 + 0.5, torch.full_like(v, 0.5)) * 2 - 1  # 4 pixels, each within ±1
    else:
        v = v / threat.distance(v, torch.zeros_like(v)).reshape(-1, 1, 1, 1)
    assert ((g * v).flatten(1).sum(1) <= threat.dual_norm(g) + 1e-9).all()


def test_l0_steepest_moves_the_strongest_pixels_to_unit_length():
    """L0 bounds no length, so its step cannot attain the dual norm; it attains ‖kept gradient‖₂."""
    g = torch.randn(10, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    step = L0(pixels=3).steepest(g)
    assert ((step != 0).any(1).flatten(1).sum(1) == 3).all()
    strength = g.square().sum(1).flatten(1).topk(3, dim=1).values.sum(1).sqrt()
    assert torch.allclose((g * step).flatten(1).sum(1), strength, rtol=1e-5)
    assert torch.allclose(step.flatten(1).norm(dim=1), torch.ones(10))


@pytest.mark.parametrize("threat", THREATS + NONE, ids=str)
def test_zero_gradient_has_no_direction(threat: Threat):
    zero = torch.zeros(3, 2, 3, 4)
    assert torch.equal(threat.steepest(zero), zero)
    assert torch.equal(threat.dual_norm(zero), torch.zeros(3))


@pytest.mark.parametrize("threat", THREATS + NONE, ids=str)
def test_sample_is_inside_and_random(threat: Threat):
    x, _ = images()
    first = threat.sample(x, seeded(0, "unit", range(len(x))))
    assert threat.contains(first, x).all()
    assert torch.equal(first, threat.sample(x, seeded(0, "unit", range(len(x)))))
    if threat.size:
        other = threat.sample(x, seeded(1, "unit", range(len(x))))
        assert (first != other).flatten(1).any(1).all()


def test_l2_sample_is_uniform_in_the_ball():
    """In the middle of a wide box the share of radius below r·eps is rᴺ."""
    x = torch.full((4000, 1, 1, 2), 0.0)
    threat = L2(eps=0.5, bounds=(-1, 1))
    radius = threat.distance(threat.sample(x, seeded(0, "ball", range(4000))), x) / 0.5
    for r in (0.3, 0.6, 0.9):
        assert abs(float((radius < r).double().mean()) - r**2) < 0.025


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_contains_refuses_what_is_outside(threat: Threat):
    x = torch.full((1, 2, 3, 4), 0.5)
    assert threat.contains(x, x).all()
    for value in (math.nan, math.inf, -math.inf, 1.0 + 1e-6, -1e-6):
        outside = x.clone()
        outside[0, 1, 2, 3] = value
        assert not threat.contains(outside, x).any()
    too_far = x + 0.5
    too_far[0, 0, 0, 0] = 0.0
    if threat.size < 1:
        assert not threat.contains(too_far, x).any()


def test_contains_allows_one_rounding_and_no_more():
    x = torch.full((1, 1, 1, 1), 0.5)
    assert Linf(eps=0.1).contains(x + 0.1, x)
    assert Linf(eps=0.1).contains(x.double() + 0.1 + 1.1e-7, x.double())
    assert not Linf(eps=0.1).contains(x.double() + 0.1 + 1.3e-7, x.double())


def test_distance_and_bounds():
    x = torch.zeros(2, 2, 2, 2)
    x_adv = x.clone()
    x_adv[1, 0, 0, 0], x_adv[1, 1, 0, 0], x_adv[1, 0, 1, 1] = 0.3, 0.4, 1.2
    assert Linf(eps=1).distance(x_adv, x).tolist() == pytest.approx([0, 1.2])
    assert L2(eps=1).distance(x_adv, x).tolist() == pytest.approx([0, 1.3])
    assert L0(pixels=1).distance(x_adv, x).tolist() == [0, 2]
    wide = Linf(eps=20.0, bounds=(0.0, 255.0))
    pixels = torch.linspace(0, 255, 200).reshape(200, 1, 1, 1)
    assert wide.contains(wide.project(pixels + 50, pixels), pixels).all()


@pytest.mark.parametrize("threat", THREATS + NONE, ids=str)
@pytest.mark.parametrize("n", [0, 1])
def test_empty_batch_and_batch_of_one(threat: Threat, n: int):
    x = torch.full((n, 2, 3, 4), 0.5)
    assert threat.project(x + 1, x).shape == x.shape
    assert threat.steepest(x).shape == x.shape
    assert threat.sample(x, SampleGenerator(torch.zeros(n, dtype=torch.int64))).shape == x.shape
    for numbers in (threat.distance(x, x), threat.dual_norm(x), threat.contains(x, x)):
        assert numbers.shape == (n,)


def test_linear_programming_agrees_with_the_closed_forms():
    """The oracles of the attack contract against SciPy's own solvers."""
    draw = np.random.default_rng(0)
    for _ in range(5):
        w, x = draw.normal(size=6), draw.uniform(size=6)
        x[0], x[1] = 0.0, 1.0
        box = minimize(lambda d, w=w: -w @ d, np.zeros(6), jac=lambda d, w=w: -w, bounds=[
            (max(-0.2, -v), min(0.2, 1 - v)) for v in x
        ])  # fmt: skip
        assert -box.fun == pytest.approx(best_linf(w, x, 0.2), rel=1e-6)
        ball = minimize(
            lambda d, w=w: -w @ d,
            np.zeros(6),
            jac=lambda d, w=w: -w,
            constraints=[
                {"type": "ineq", "fun": lambda d: 0.36 - d @ d, "jac": lambda d: -2 * d},
                LinearConstraint(np.eye(6), -x, 1 - x),
            ],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert -ball.fun == pytest.approx(best_l2(w, x, 0.6), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        ("linf:0.1", Linf(eps=0.1)),
        ("Linf:8/255", Linf(eps=8 / 255)),
        (" l2:0.5 ", L2(eps=0.5)),
        ("l2:0", L2(eps=0.0)),
        ("l0:10", L0(pixels=10)),
        ("l0:10.0", L0(pixels=10)),
    ],
)
def test_parse_threat(text: str, threat: Threat):
    assert parse_threat(text) == threat
    assert parse_threat(str(threat)) == threat


def test_a_threat_is_written_as_it_is_typed():
    assert [str(threat) for threat in (Linf(eps=0.1), L2(eps=0.5), L0(pixels=10))] == ["linf:0.1", "l2:0.5", "l0:10"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "linf",
        "linf:",
        "linf:abc",
        "linf:nan",
        "linf:inf",
        "linf:-0.1",
        "linf:8/",
        "linf:8/0",
        "linf:1/2/3",
        "l1:0.3",
        "l0:1.5",
        "l0:-1",
        "l0:nan",
        "l2:-1/255",
        "0.1",
        "linf=0.1",
        "linf:0.1:0.2",
    ],
)
def test_parse_threat_refuses(text: str):
    with pytest.raises(BadInput) as caught:
        parse_threat(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("eps", [-1, math.nan, math.inf, "0.1", None])
def test_eps_is_checked(eps):
    for kind in (Linf, L2):
        with pytest.raises(BadInput, match=f"'eps' of {kind.__name__}"):
            kind(eps=eps)


def test_other_fields_are_checked():
    for pixels in (-1, 1.5, "3"):
        with pytest.raises(BadInput, match="'pixels' of L0"):
            L0(pixels=pixels)  # pyright: ignore[reportArgumentType]
    for bounds in ((1.0, 0.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(BadInput, match="'bounds'"):
            Linf(eps=0.1, bounds=bounds)
