"""SPSA: where it asks, what it estimates, and its Adam against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from controls import Coupled, Linear, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Probe
from verigrad.attacks.spsa import GROUP, SPSA
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


class Recorder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.inner(x)


def curved() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 24), nn.Softplus(beta=3), nn.Linear(24, 3)).double()


def test_queries_are_pairs_around_the_iterate():
    model = Recorder(curved())
    x, _, _ = linear_problem(1, dtype=torch.float64)
    y = model.inner(x).argmax(1)
    SPSA(samples=8, steps=1, delta=0.02)(model, x, y, Linf(eps=0.05), generator=seeded(0, "spsa", [0]))
    start = Linf(eps=0.05).sample(x, seeded(0, "spsa", [0]))
    asked = (model.seen[0] - start) / 0.02
    assert torch.allclose(asked.abs(), torch.ones_like(asked))
    assert torch.allclose(asked[:4], -asked[4:])
    assert len(asked[:4].reshape(4, -1).unique(dim=0)) == 4
    assert [len(part) for part in model.seen] == [8, 1, 1]


def test_the_estimate_is_of_the_gradient_at_x_and_not_at_twice_x():
    model = curved()
    x, _, _ = linear_problem(5, dtype=torch.float64)
    y = model(x).argmax(1)

    def gradient(at: Tensor) -> Tensor:
        at = at.clone().requires_grad_(True)
        return torch.autograd.grad(margin(model(at), y).sum(), at)[0].flatten(1)

    attack = SPSA(samples=8192, delta=1e-3)
    got = attack._estimate(Probe(model, y), x, torch.arange(5), seeded(0, "spsa", range(5))).flatten(1)
    here, far = (F.cosine_similarity(got, gradient(at)) for at in (x, 2 * x))
    assert (here > 0.99).all()
    assert (here > far).all()
    assert torch.allclose(got.norm(dim=1), gradient(x).norm(dim=1), rtol=0.05)


def test_an_independent_run_with_torchs_adam():
    """One image, the same random signs, `torch.optim.Adam`, projection by clipping."""
    model, eps, steps, samples, delta = curved(), 0.1, 7, 10, 0.01
    x, _, _ = linear_problem(1, dtype=torch.float64)
    y = model(x).argmax(1)
    got = SPSA(steps=steps, samples=samples, delta=delta)(model, x, y, Linf(eps=eps), generator=seeded(5, "u", [0]))
    assert not got.broken.any()
    draws = seeded(5, "u", [0])
    point = Linf(eps=eps).sample(x, draws).requires_grad_(True)
    adam = torch.optim.Adam([point], lr=0.01, eps=1e-9, maximize=True)
    for _ in range(steps):
        v = draws.signs(samples // 2, *x.shape[1:], dtype=torch.float64)[0]
        with torch.no_grad():
            labels = y.expand(len(v))
            rise = margin(model(point + delta * v), labels) - margin(model(point - delta * v), labels)
            point.grad = (rise.reshape(-1, 1, 1, 1) * v).mean(0, keepdim=True) / (2 * delta)
        adam.step()
        with torch.no_grad():
            point.copy_(torch.minimum(torch.maximum(point, x - eps), x + eps).clamp(0, 1))
    assert torch.allclose(got.x_adv, point, atol=1e-9)
    assert int(got.forwards[0]) == steps * (samples + 1) + 1
    assert int(got.backwards[0]) == 0


@pytest.mark.parametrize("samples", [2, 32, 2 * GROUP + 6, 6 * GROUP])
def test_passes(samples: int):
    x, y, w = linear_problem(3)
    got = SPSA(steps=4, samples=samples)(Linear(w, 100.0), x, y, Linf(eps=0.1), generator=seeded(0, "n", range(3)))
    assert got.forwards.tolist() == [4 * (samples + 1) + 1] * 3


def test_it_needs_no_gradient():
    class Cut(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.detach())

    x, y, w = linear_problem()
    model = Linear(w, float((x.flatten(1) @ w).median()) + 0.5)
    got = SPSA()(Cut(model), x, y, Linf(eps=0.1), generator=seeded(0, "n", range(len(x))))
    assert got.broken.sum() > (model(x).argmax(1) == 1).sum()


def test_batches_stay_bounded():
    model = Recorder(Linear(linear_problem()[2], 100.0))
    x, y, _ = linear_problem(70)
    SPSA(steps=1, samples=128)(model, x, y, Linf(eps=0.1), generator=seeded(0, "n", range(70)))
    assert max(len(part) for part in model.seen) <= 1024


def test_a_coupled_model_is_asked_in_joint_batches():
    x, y, w = linear_problem(6)
    model = Recorder(Coupled(Linear(w, 100.0), strength=0.3))
    got = SPSA(steps=2, samples=4, delta=0.01)(model, x, y, Linf(eps=0.1), generator=seeded(0, "j", range(6)))
    assert {len(part) for part in model.seen} == {6}
    assert got.forwards.tolist() == [2 * (4 + 1) + 1] * 6
    start = Linf(eps=0.1).sample(x, seeded(0, "j", range(6)))
    asked = (model.seen[0] - start) / 0.01
    assert torch.allclose(asked.abs(), torch.ones_like(asked), atol=1e-4)
    assert (asked.flatten(1)[1:] != asked.flatten(1)[0]).any(1).all()  # each sample in directions of its own


def test_under_l2_it_stays_inside():
    x, y, w = linear_problem()
    got = SPSA()(Linear(w, 100.0), x, y, L2(eps=0.3), generator=seeded(0, "n", range(len(x))))
    assert L2(eps=0.3).contains(got.x_adv, x).all()


@pytest.mark.parametrize(
    "fields", [{"steps": 0}, {"samples": 3}, {"samples": 0}, {"delta": 0.0}, {"step_size": -1.0}, {"score": "loss"}]
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        SPSA(**fields)
