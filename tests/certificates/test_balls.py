"""The L1 ball in the box: its projection and its farthest point against searches, its samples inside."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog
from torch import Tensor

from verigrad.certificates.balls import L1, ball, climb, farthest, span
from verigrad.core.seeds import seeded


def points(n: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 3, 4, generator=draw, dtype=torch.float64)
    x = torch.where(x < 0.2, 0.0, torch.where(x > 0.8, 1.0, x))
    return x, x + torch.randn(x.shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("eps", [0.01, 0.5, 2.0, 50.0])
def test_the_projection_is_the_nearest_point(eps: float) -> None:
    """Against the dual problem: d(λ) = shrunk and cut, λ found by a search."""
    x, far = points()
    near = L1(eps=eps).project(far, x)
    assert L1(eps=eps).contains(near, x).all()
    for start, end, mine in zip(x.flatten(1).numpy(), far.flatten(1).numpy(), near.flatten(1).numpy(), strict=True):
        g = end - start
        room = np.where(g > 0, 1 - start, start)

        def move(level: float, g: np.ndarray = g, room: np.ndarray = room) -> np.ndarray:
            return np.sign(g) * np.minimum(np.maximum(np.abs(g) - level, 0), room)

        def over(level: float, move: Callable[[float], np.ndarray] = move) -> float:
            return np.abs(move(level)).sum() - eps

        level = 0.0 if over(0.0) <= 0 else brentq(over, 0, 9, xtol=1e-12)
        assert mine - start == pytest.approx(move(level), abs=1e-6)
    # The control: clipping to the box after a projection onto the ball alone is no projection onto both.
    if eps == 2.0:
        shrunk = L1(eps=eps, bounds=(-9.0, 9.0)).project(far, x).clamp(0, 1)
        assert ((shrunk - far).flatten(1).norm(dim=1) > (near - far).flatten(1).norm(dim=1) + 1e-3).any()


@pytest.mark.parametrize("eps", [0.3, 3.0])
def test_the_farthest_point_solves_the_linear_programme(eps: float) -> None:
    x, far = points(n=8)
    g = far - x
    best = ((L1(eps=eps).farthest(x, g) - x) * g).flatten(1).sum(1)
    for start, slope, mine in zip(x.flatten(1).numpy(), g.flatten(1).numpy(), best, strict=True):
        bounds = [(0, hi) for hi in 1 - start] + [(0, lo) for lo in start]
        found = linprog(np.concatenate([-slope, slope]), A_ub=np.ones((1, 24)), b_ub=[eps], bounds=bounds)
        assert float(mine) == pytest.approx(-found.fun)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_everything_stays_in_ball_and_box(norm: str) -> None:
    x, far = points()
    x, far = x.float(), far.float()
    around = ball(norm, 0.7)
    generator = seeded(0, "balls", range(len(x)))
    full = farthest(around, x, far - x)
    for point in (around.sample(x, generator), full, climb(around, full, x, x - far, share=0.8)):
        assert around.contains(point, x).all()
        assert not torch.equal(point, x)
    assert not around.contains(far, x).any()


def test_l1_samples_fill_the_ball() -> None:
    """Uniform: the length has mean eps·n/(n + 1), and every pixel moves both ways."""
    x = torch.full((4000, 1, 1, 3), 0.5, dtype=torch.float64)
    move = L1(eps=0.4).sample(x, seeded(0, "l1", range(len(x)))) - x
    assert float(move.abs().sum((1, 2, 3)).mean()) == pytest.approx(0.4 * 3 / 4, rel=0.02)
    assert move.mean(0).abs().max() < 0.01


@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.9), ("l2", np.sqrt(0.81 + 0.49)), ("l1", 1.6)])
def test_span_is_the_farthest_valid_image(norm: str, expected: float) -> None:
    assert float(span(norm, torch.tensor([[[[0.1, 0.7]]]], dtype=torch.float64))[0]) == pytest.approx(expected)


def test_dual_norms_and_distances() -> None:
    g = torch.tensor([[[[3.0, -4.0]]]])
    assert [float(ball(norm, 1.0).dual_norm(g)[0]) for norm in ("linf", "l2", "l1")] == [7.0, 5.0, 4.0]
    assert float(L1(eps=1.0).distance(g, 0 * g)[0]) == 7.0
    assert L1(eps=1.0).steepest(g).flatten().tolist() == [0.0, -1.0]
