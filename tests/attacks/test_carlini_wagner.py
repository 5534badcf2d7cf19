"""CW-Linf against an independent run of the same algorithm, one image at a time, in NumPy."""

import numpy as np
import pytest
import torch
from controls import Coupled, Linear, best_linf, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Probe
from verigrad.attacks.carlini_wagner import CarliniWagnerLinf, _Search
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf


def by_the_book(model: nn.Module, image: Tensor, label: int, steps: int = 100) -> tuple[np.ndarray | None, int]:
    """The tau loop for one image: the nearest error over all queries, and how many queries there were."""

    def to_image(w: np.ndarray) -> np.ndarray:
        return (np.tanh(w) + 1) / 2

    def ask(point: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(point)[None].requires_grad_(True)
        z = model(x)[0]
        others = torch.cat([z[:label], z[label + 1 :]])
        lead = z[label] - others.max()
        (gradient,) = torch.autograd.grad(lead, x)
        return lead.item(), gradient[0].numpy()

    clean = image.numpy()
    start = np.arctanh(0.999999 * (2 * clean - 1))
    origin = to_image(start)
    nearest, distance, queries, tau = None, np.inf, 0, 1.0
    while tau > 1 / 256:
        delta = m = v = np.zeros_like(start)
        found, previous = False, np.inf
        for i in range(steps):
            point = to_image(start + delta)
            lead, slope = ask(point)
            queries += 1
            if lead < 0:
                found = True
                if np.abs(point - clean).max() < distance:
                    nearest, distance = point, np.abs(point - clean).max()
            gap = point - origin
            loss = np.maximum(np.abs(gap) - tau, 0).sum() + 0.01 * max(lead, 0)
            g = np.sign(gap) * (np.abs(gap) > tau) + (0.01 * slope if lead > 0 else 0)
            g = g * (1 - (2 * point - 1) ** 2) / 2
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            delta = delta - 0.005 * (m / (1 - 0.9 ** (i + 1))) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-7)
            if i % np.ceil(steps / 10) == 0:
                if not previous - loss > 1e-4:
                    break
                previous = loss
        if not found:
            break
        last = to_image(start + delta)
        tau = 0.9 * min(tau, np.abs(last - origin).max())
        start = np.arctanh(0.999999 * (2 * last - 1))
    return nearest, queries


def problem(n: int = 12):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    x, _, _ = linear_problem(n, dtype=torch.float64)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("steps", [100, 25])
def test_same_points_and_same_passes_as_one_image_at_a_time(steps: int, scale: float):
    model, x, y = problem()
    with torch.no_grad():
        model[3].weight *= scale
    attack, never = CarliniWagnerLinf(steps=steps), Linf(eps=0.0)  # nothing is inside eps = 0: the search runs out
    search, probe = _Search(attack, x, never), Probe(model, y)
    while len(search.rows):
        search.advance(probe.ascend(search.look_at(), search.rows, margin), probe)
    seen = 0
    for i in range(len(x)):
        nearest, queries = by_the_book(model, x[i], int(y[i]), steps)
        seen += nearest is not None
        expected = x[i].numpy() if nearest is None else nearest
        assert np.abs(search.best[i].detach().numpy() - expected).max() < 1e-9
        assert int(probe.forwards[i]) == queries
        assert int(probe.backwards[i]) == queries
    assert seen > 0 if scale > 1 else True


def test_the_cut_breaks_exactly_what_the_full_search_and_the_cut_break():
    """Stopping at the first error inside the threat changes no verdict."""
    model, x, y = problem(16)
    with torch.no_grad():
        model[3].weight *= 10
    eps = 0.1
    got = CarliniWagnerLinf()(model, x, y, Linf(eps=eps), generator=seeded(0, "cw", range(16)))
    for i in range(16):
        nearest, _ = by_the_book(model, x[i], int(y[i]))
        point = x[i] if nearest is None else torch.tensor(nearest).clamp(x[i] - eps, x[i] + eps).clamp(0, 1)
        assert bool(got.broken[i]) == (int(model(point[None]).argmax()) != int(y[i]))
    assert got.broken.any()
    assert not got.broken.all()


def test_distance_is_near_the_exact_one_on_a_linear_model():
    x, y, w = linear_problem(dtype=torch.float64)
    lead = 1.0
    model = Linear(w * 5, 0.0)
    for i in range(8):
        one = x[i : i + 1]
        model.threshold = float((5 * w * one.flatten()).sum()) + lead
        search, probe = _Search(CarliniWagnerLinf(), one, Linf(eps=0.0)), Probe(model, y[:1])
        while len(search.rows):
            search.advance(probe.ascend(search.look_at(), search.rows, margin), probe)
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            gain = best_linf(5 * w.numpy(), one.flatten().numpy(), middle)
            low, high = (middle, high) if gain < lead else (low, middle)
        # Tau ends at 1/256, and a round overshoots it by an Adam step or two.
        assert high <= float(search.best_distance[0]) <= 1.25 * high + 1 / 256


def test_it_gives_up_where_every_pixel_is_on_the_border_as_the_code_does():
    """tanh is flat there, the loss hardly falls in ten steps, and the first check ends the only round."""
    x, y, w = linear_problem(1, dtype=torch.float64)
    model, black = Linear(w.abs() * 5, 1.0), torch.zeros_like(x)
    got = CarliniWagnerLinf()(model, black, y, Linf(eps=0.2), generator=seeded(0, "cw", [0]))
    assert by_the_book(model, black[0], 0) == (None, 11)
    assert got.backwards.tolist() == [11]
    assert not got.broken.any()
    assert torch.equal(got.x_adv, black)


def test_other_threats_and_other_boxes():
    x, y, w = linear_problem()
    got = CarliniWagnerLinf()(Linear(w, 0.3), x, y, L2(eps=0.4), generator=seeded(0, "cw", range(len(x))))
    assert L2(eps=0.4).contains(got.x_adv, x).all()
    wide = Linf(eps=0.2, bounds=(-1.0, 1.0))
    scaled = CarliniWagnerLinf()(Linear(w, 0.3), 2 * x - 1, y, wide, generator=seeded(0, "cw", range(len(x))))
    assert wide.contains(scaled.x_adv, 2 * x - 1).all()
    assert scaled.broken.any()


def test_a_coupled_batch_of_one_is_the_code_of_the_paper():
    model, x, y = problem(3)
    coupled = Coupled(model, strength=0.5)
    for i in range(3):
        got = CarliniWagnerLinf()(coupled, x[i : i + 1], y[i : i + 1], Linf(eps=0.0), generator=seeded(0, "cw", [i]))
        _, queries = by_the_book(coupled, x[i], int(y[i]))
        assert int(got.forwards[0]) == queries + 1


@pytest.mark.parametrize("fields", [{"steps": 0}, {"step_size": 0.0}, {"constant": -1.0}, {"tau_decay": 1.0}])
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        CarliniWagnerLinf(**fields)
