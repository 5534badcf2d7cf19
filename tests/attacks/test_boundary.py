"""The Boundary attack against closed forms and a walk of one sample written out."""

from __future__ import annotations

import math

import pytest
import torch
from controls import SHAPE, Linear, best_l2, linear_problem
from torch import Tensor, nn

from verigrad.attacks.boundary import Boundary
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.core.threat import L0, L2, Linf

WIDE = L2(eps=1e3)


def problem(n: int = 12) -> tuple[Linear, Tensor, Tensor]:
    x, y, w = linear_problem(n, dtype=torch.float64)
    return Linear(w, float((x.flatten(1) @ w).max()) + 0.05), x, y


def exact_l2(model: Linear, x: Tensor) -> Tensor:
    """The distance of each image's nearest error: the eps at which the best gain equals the lead."""
    w = model.w.detach().numpy()
    found = []
    for image in x.flatten(1):
        lead = model.threshold - float(image @ model.w.detach())
        low, high = 0.0, 5.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if best_l2(w, image.numpy(), middle) < lead else (low, middle)
        found.append(high)
    return torch.tensor(found, dtype=torch.float64)


def run(attack, model, x, y, threat=WIDE, ids=None, run_seed=3):
    return attack(model, x, y, threat, generator=seeded(run_seed, "walk", range(len(x)) if ids is None else ids))


def test_it_nears_the_closest_error_and_more_queries_do_not_harm():
    model, x, y = problem()
    exact = exact_l2(model, x)
    ratios = []
    for queries in (100, 1200):
        got = run(Boundary(queries=queries), model, x, y)
        assert got.broken.all()
        assert (got.forwards <= queries).all()
        assert not got.backwards.any()
        ratios.append(got.distance / exact)
    assert (ratios[1] <= 1.1).all()
    assert (ratios[1] > 1 - 1e-6).all()
    assert (ratios[0] >= ratios[1]).all()
    assert ratios[0].median() > 1.1


def walked(attack: Boundary, model: nn.Module, x: Tensor, generator: SampleGenerator) -> tuple[float, list[float]]:
    """The walk of one image (1, C, H, W) of label 0 in plain numbers: the nearest distance, and the steps' history."""
    first, asked = generator.counter, 0

    def draw(kind: str) -> Tensor:
        streams = SampleGenerator(generator.seeds, first + 2 * asked)
        drawn = getattr(streams, kind)(*SHAPE, dtype=x.dtype)
        return drawn.round() if kind == "uniform" and asked % 2 else drawn

    def errs(point: Tensor) -> bool:
        nonlocal asked
        asked += 1
        error = int(model(point).argmax()) != 0
        if error:
            distances.append(float((point - x).norm()))
        return error

    distances: list[float] = []
    budget = attack.queries - 2
    start = draw("uniform")
    while not errs(start):
        start = draw("uniform")
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if errs(x + middle * (start - x)) else (middle, high)
    here = x + high * (start - x)
    for _ in range(min(attack.starts, attack.queries // 10)):
        way = draw("uniform") - x
        point = (x + 0.9 * (here - x).norm() / way.norm() * way).clamp(0, 1)
        here = point if errs(point) else here
    orthogonal, source = attack.orthogonal_step, attack.source_step
    sideways: list[bool] = []
    inward: list[bool] = []
    steps = []
    age = 8 + min(attack.starts, attack.queries // 10)
    while asked < budget:
        r = float((here - x).norm())
        u = (here - x) / r
        eta = draw("normal")
        eta = eta - (eta * u).sum() * u
        turned = (u + orthogonal * eta / eta.norm()) / math.sqrt(1 + orthogonal**2)
        alone = age % 3 == 0
        point = (x + r * (1 if alone else 1 - source) * turned).clamp(0, 1)
        error = errs(point)
        here = point if error else here
        (sideways if alone else inward).append(error)
        if len(sideways) == 5:
            by = 1.5 if sum(sideways) > 2.5 else 1 / 1.5 if sum(sideways) < 1 else 1
            orthogonal, source, sideways = orthogonal * by, source * by, []
        if len(inward) == 5:
            by = 1.5 if sum(inward) >= 1.25 else 1 / 1.5 if sum(inward) < 0.5 else 1
            source, inward = source * by, []
        orthogonal, source = min(orthogonal, 1.0), min(source, 0.9)
        steps.append(orthogonal)
        age += 1
    return min(distances), steps


@pytest.mark.parametrize("starts", [0, 7])
def test_every_query_is_that_of_the_walk_written_out(starts: int):
    model, x, y = problem(4)
    attack = Boundary(queries=160, starts=starts, orthogonal_step=0.3)
    got = run(attack, model, x, y)
    for i in range(len(x)):
        nearest, steps = walked(attack, model, x[i : i + 1], seeded(3, "walk", [i]))
        assert got.distance[i].item() == pytest.approx(nearest, rel=1e-9)
        assert len(set(steps)) > 1


class Counted(nn.Module):
    """The same classifier, with its calls and the images in them counted."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls = 0
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.images += len(x)
        return self.inner(x)


def test_a_sample_without_a_start_keeps_its_image_and_stops_nobody():
    model, x, _ = problem(6)
    y = torch.zeros(6, dtype=torch.int64)
    alone = run(Boundary(queries=60), model, x, y)
    far = Linear(torch.zeros(18, dtype=torch.float64), 1.0)  # always class 0: no draw errs
    none = run(Boundary(queries=60), far, x, y)
    assert not none.broken.any()
    assert torch.equal(none.x_adv, x)
    assert (none.forwards == 60).all()

    class ByRow(nn.Module):
        """The first row of a batch of six belongs to the classifier that never errs."""

        batch_coupled = True

        def forward(self, z: Tensor) -> Tensor:
            return torch.cat([far(z[:1]), model(z[1:])])

    mixed = run(Boundary(queries=60), ByRow(), x, y)
    assert mixed.broken.tolist() == [False, True, True, True, True, True]
    assert torch.equal(mixed.x_adv[0], x[0])
    assert torch.allclose(mixed.distance[1:], alone.distance[1:])


def test_its_forwards_are_those_of_the_model():
    model, x, y = problem(5)
    counting = Counted(model)
    got = run(Boundary(queries=90), counting, x, y)
    assert counting.images == int(got.forwards.sum())
    assert counting.calls <= 90
    wrong = run(Boundary(), model, x, 1 - y)
    assert torch.equal(wrong.x_adv, x)
    assert (wrong.forwards == 2).all()


def test_distances_are_in_the_threats_norm_and_the_threat_cuts():
    model, x, y = problem()
    sup = run(Boundary(queries=200), model, x, y, Linf(eps=1.0))
    assert torch.allclose(sup.distance, (sup.x_adv - x).flatten(1).abs().amax(1))
    euclid = run(Boundary(queries=200), model, x, y)
    assert (sup.distance <= (euclid.x_adv - x).flatten(1).abs().amax(1)).all()
    cut = run(Boundary(queries=200), model, x, y, L2(eps=float(euclid.distance.median())))
    assert torch.equal(cut.broken, euclid.distance <= euclid.distance.median())
    assert torch.equal(cut.x_adv[~cut.broken], x[~cut.broken])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"queries": 1}, "'queries'"),
        ({"source_step": 1.0}, "'source_step'"),
        ({"orthogonal_step": 0.0}, "'orthogonal_step'"),
        ({"orthogonal_step": math.nan}, "'orthogonal_step'"),
        ({"starts": -1}, "'starts'"),
    ],
)
def test_bad_values_are_refused(values: dict[str, float], told: str):
    with pytest.raises(BadInput, match=told):
        Boundary(**values)  # type: ignore[arg-type]


def test_l0_is_refused():
    model, x, y = problem(2)
    with pytest.raises(BadInput, match="L2 and Linf"):
        run(Boundary(), model, x, y, L0(pixels=2))
