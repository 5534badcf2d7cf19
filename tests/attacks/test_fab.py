"""FAB: projections against bisection, distances on linear classifiers, and the steps against a loop from the paper."""

import numpy as np
import pytest
import torch
from controls import Counting, Linear, NonFiniteGradient, linear_problem, stamped
from torch import Tensor, nn

from verigrad.attacks.fab import FAB
from verigrad.attacks.hyperplane import length, way
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat

WIDE: tuple[Threat, ...] = (Linf(eps=1.0), L2(eps=1e3))


def bisected(threat: Threat, w: Tensor, x: Tensor, gap: float) -> Tensor:
    """The shortest d (numbers of one image) in the box with ⟨w, d⟩ = gap > 0, by bisection on its multiplier."""
    slopes, start = w.double().flatten().numpy(), x.double().flatten().numpy()
    speed = np.sign(slopes) if isinstance(threat, Linf) else slopes

    def move(t: float) -> np.ndarray:
        return np.clip(t * speed, -start, 1 - start)

    low, high = 0.0, 1e6
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if slopes @ move(middle) < gap else (low, middle)
    return torch.from_numpy(move(high)).reshape(x.shape)


def size(threat: Threat, d: Tensor) -> float:
    return float(d.abs().max() if isinstance(threat, Linf) else d.norm())


def most(w: Tensor, x: Tensor) -> float:
    """The largest ⟨w, d⟩ in the box."""
    return float((w.double() * ((w > 0).double() - x.double()))[w != 0].sum())


def run(attack: FAB, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, ids=None):
    return attack(model, x, y, threat, generator=seeded(0, "fab", range(len(x)) if ids is None else ids))


@pytest.mark.parametrize("threat", WIDE, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_projection_is_the_shortest_way(threat: Threat, sign: int):
    x, _, _ = linear_problem(12, dtype=torch.float64)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slope[:, 0, 0, 0] = 0.0
    all_room = torch.tensor([most(sign * w, p) for w, p in zip(slope, x, strict=True)], dtype=torch.float64)
    for share in (1e-6, 0.05, 0.4, 0.9, 1 - 1e-9):
        gap = sign * share * all_room
        d = way(x, slope, gap, threat)
        assert ((slope * d).flatten(1).sum(1) - gap).norm() < 1e-12 * all_room.norm()
        assert ((x + d >= -1e-15) & (x + d <= 1 + 1e-15)).all()
        triples = zip(slope, x, gap.tolist(), strict=True)
        wanted = torch.stack([bisected(threat, sign * w, p, abs(g)) for w, p, g in triples])
        assert (d - wanted).norm() < 1e-6 * wanted.norm()
        assert length(d, threat).tolist() == pytest.approx([size(threat, one) for one in d])
        for scale in (1e-30, 1e30):  # only the ratio of gap and slope counts
            assert (way(x, slope * scale, gap * scale, threat) - d).norm() < 1e-12 * d.norm()


@pytest.mark.parametrize("threat", WIDE, ids=lambda t: type(t).__name__)
def test_projections_at_the_edges(threat: Threat):
    x, _, _ = linear_problem(8, dtype=torch.float64)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    beyond = way(x, slope, torch.full((8,), 1e3, dtype=torch.float64), threat)
    assert (x + beyond - (slope > 0).double()).norm() < 1e-12  # the corner that goes farthest
    for gap in (0.0, torch.nan):
        assert not way(x, slope, torch.full((8,), gap, dtype=torch.float64), threat).any()
    assert not way(x, slope * 0, torch.ones(8, dtype=torch.float64), threat).any()
    inside = x * 0.5 + 0.25
    free = way(inside, slope, torch.full((8,), 1e-3, dtype=torch.float64), threat)
    norms = slope.flatten(1).abs().sum(1) if isinstance(threat, Linf) else slope.flatten(1).square().sum(1)
    step = slope.sign() if isinstance(threat, Linf) else slope
    assert (free - 1e-3 * step / norms.reshape(-1, 1, 1, 1)).norm() < 1e-12  # no box: the textbook's


class Classes(nn.Module):
    """K linear logits."""

    def __init__(self, classes: int = 6, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(classes, 18, generator=draw, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w.to(x.dtype).T


@pytest.mark.parametrize("threat", WIDE, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("targets", [0, 5, 99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_distances_on_a_linear_classifier_are_exact(threat: Threat, targets: int, dtype: torch.dtype):
    model, (x, _, _) = Classes(), linear_problem(10, dtype=dtype)
    y = model(x).argmax(1)
    got = run(FAB(steps=8, targets=targets), model, x, y, threat)
    assert got.broken.all()
    exact = []
    for image, label in zip(x.double(), y.tolist(), strict=True):
        z = model(image[None])[0].detach()
        ways = ((model.w[j] - model.w[label]).detach().reshape(image.shape) for j in range(6) if j != label)
        gaps = (float(z[label] - z[j]) for j in range(6) if j != label)
        found = [
            size(threat, bisected(threat, w, image, g)) for w, g in zip(ways, gaps, strict=True) if most(w, image) > g
        ]
        exact.append(min(found))
    ratio = got.distance / torch.tensor(exact, dtype=torch.float64)
    assert (ratio >= 1 - 1e-5).all()
    assert (ratio <= 1.005).all()  # an overshoot that the box cuts leaves a little


def test_the_nearest_logit_need_not_be_the_nearest_border():
    """The second highest logit lies behind a far border: one target misses the nearest error, all classes find it."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            far, near = x[:, 0, 0, 0], x[:, 0, 0, 1]
            return torch.stack([torch.ones_like(far), 0.8 + 0.2 * (far - 0.2), 5 * (near - 0.5) + 0.5], 1)

    x, y = torch.full((1, 1, 2, 2), 0.4, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    distances = [run(FAB(steps=20, targets=t), Two(), x, y, Linf(eps=1.0)).distance.item() for t in (0, 1, 2)]
    assert distances[0] == pytest.approx(0.2, rel=1e-3)
    assert distances[2] == pytest.approx(0.2, rel=1e-3)
    assert distances[1] == 0.0  # the border of class 1 lies outside the box, so nothing is found


def curved() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 20), nn.Tanh(), nn.Linear(20, 4)).double()


def from_the_paper(model: nn.Module, image: Tensor, label: int, threat: Threat, steps: int, alpha_max: float) -> Tensor:
    """Algorithm 1 and the final search for one image, with projections by bisection; the nearest error, or image."""

    def project(z: Tensor, w: Tensor, gap: float) -> Tensor:
        return bisected(threat, w, z, gap) if gap >= 0 else bisected(threat, -w, z, -gap)

    def logits(z: Tensor) -> Tensor:
        return model(z[None])[0]

    z, best, least = image.clone(), image.clone(), np.inf
    for _ in range(steps):
        borders = []
        for j in range(4):
            if j != label:
                leaf = z.clone().requires_grad_(True)
                gap = logits(leaf)[j] - logits(leaf)[label]
                (w,) = torch.autograd.grad(gap, leaf)
                dual = w.abs().sum() if isinstance(threat, Linf) else w.norm()
                borders.append((abs(gap.item()) / dual.item(), gap.item(), w))
        if int(logits(z).argmax()) != label and size(threat, z - image) < least:
            best, least = z.clone(), size(threat, z - image)
        _, gap, w = min(borders, key=lambda border: border[0])
        d_z, d_x = project(z, w, -gap), project(image, w, float((w * (z - image)).sum()) - gap)
        alpha = min(alpha_max, size(threat, d_z) / (size(threat, d_z) + size(threat, d_x)))
        z = ((1 - alpha) * (z + 1.05 * d_z) + alpha * (image + 1.05 * d_x)).clamp(0, 1)
        if int(logits(z).argmax()) != label:
            if size(threat, z - image) < least:
                best, least = z.clone(), size(threat, z - image)
            z = image + 0.9 * (z - image)
    if np.isinf(least):
        return image
    good, bad = image, best
    for _ in range(3):
        other = int(logits(bad).masked_fill(torch.eye(4, dtype=torch.bool)[label], -torch.inf).argmax())
        below = (logits(good)[label] - logits(good)[other]).item()
        above = (logits(bad)[other] - logits(bad)[label]).item()
        share = (below + 0.05 * above) / (below + above)
        middle = good + (share if 0 <= share <= 1 else 1.0) * (bad - good)
        good, bad = (good, middle) if int(logits(middle).argmax()) != label else (middle, bad)
    return bad.detach()


@pytest.mark.parametrize("threat", WIDE, ids=lambda t: type(t).__name__)
def test_the_steps_are_the_papers(threat: Threat):
    model, x = curved(), linear_problem(8, dtype=torch.float64)[0]
    y = model(x).argmax(1)
    for steps, alpha_max in ((1, 0.1), (2, 0.1), (5, 0.1), (5, 0.01)):
        got = run(FAB(steps=steps, alpha_max=alpha_max), model, x, y, threat)
        pairs = zip(x, y.tolist(), strict=True)
        wanted = torch.stack([from_the_paper(model, p, label, threat, steps, alpha_max) for p, label in pairs])
        assert (got.x_adv - wanted).norm() < 1e-6 * (wanted - x).norm()
        assert got.broken.sum() > 4


def test_eps_plays_no_part_before_the_end():
    model, x = curved(), linear_problem(30, dtype=torch.float64)[0]
    y = model(x).argmax(1)
    far = run(FAB(steps=10), model, x, y, Linf(eps=1.0))
    eps = float(far.distance.median())
    near = run(FAB(steps=10), model, x, y, Linf(eps=eps))
    inside = far.distance <= eps
    assert 5 < inside.sum() < 25
    assert torch.equal(near.broken, inside & far.broken)
    assert torch.equal(near.x_adv[inside], far.x_adv[inside])
    assert torch.equal(near.x_adv[~inside], x[~inside])
    assert torch.equal(near.backwards, far.backwards)


def test_restarts_and_targets_never_lose():
    model, x = curved().float(), linear_problem(60)[0]
    y = model(x).argmax(1)
    for threat in WIDE:
        one, three = (run(FAB(steps=10, restarts=n), model, x, y, threat).distance for n in (1, 3))
        aims = [run(FAB(steps=10, targets=n), model, x, y, threat).distance for n in (1, 3)]
        assert (three <= one * 1.001).all()
        assert (three < one * 0.9999).any()
        assert (aims[1] <= aims[0] * 1.001)[aims[0] > 0].all()


@pytest.mark.parametrize(("targets", "looks"), [(0, 3), (2, 1)])
def test_passes(targets: int, looks: int):
    x = stamped(linear_problem(12)[0])
    torch.manual_seed(5)
    counted = Counting(nn.Sequential(nn.Flatten(), nn.Linear(18, 20), nn.Tanh(), nn.Linear(20, 4)), len(x))
    with torch.no_grad():
        y = counted(x).argmax(1)
    y[3] = (y[3] + 1) % 4
    counted.forwards[:] = 0
    got = run(FAB(steps=4, restarts=2, targets=targets), counted, x, y, Linf(eps=0.002))
    assert got.forwards.tolist() == counted.forwards.tolist()
    assert got.backwards.tolist() == counted.backwards.tolist()
    assert (got.forwards[3], got.backwards[3], got.distance[3]) == (2, 0, 0.0)
    runs = 2 * max(targets, 1)
    others = torch.arange(12) != 3
    assert (got.backwards[others] == runs * 4 * looks).all()
    assert set(got.forwards[others].tolist()) <= {1 + runs * 4 * (looks + 1) + search + 1 for search in (0, 4)}


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.4)], ids=str)
def test_a_sparing_run_leaves_what_is_far_and_finds_what_is_near(threat: Threat):
    x, y, w = linear_problem(20)
    model = Linear(w, 0.4)
    full, sparing = (run(FAB(steps=20, sparing=one), model, x, y, threat) for one in (False, True))
    exact = run(FAB(steps=20), model, x, y, type(threat)(eps=1e3)).distance
    far, near = exact > 1.7 * threat.size, exact < threat.size
    assert far.any()
    assert near.any()
    assert torch.equal(full.broken, sparing.broken)
    assert torch.equal(full.x_adv[near], sparing.x_adv[near])
    assert (full.forwards - sparing.forwards)[far].tolist() == [2 * 15] * int(far.sum())
    assert torch.equal(full.forwards[near], sparing.forwards[near])


def test_it_is_the_same_in_any_company():
    model, x = curved(), linear_problem(9, dtype=torch.float64)[0]
    y = model(x).argmax(1)
    for attack in (FAB(steps=5, restarts=2), FAB(steps=5, restarts=2, targets=2)):
        for threat in WIDE:
            whole = run(attack, model, x, y, threat)
            for ids in ([*reversed(range(9))], [7, 2], [4]):
                part = run(attack, model, x[ids], y[ids], threat, ids)
                assert (part.x_adv - whole.x_adv[ids]).norm() < 1e-9


def test_without_a_gradient_nothing_moves():
    x, y, w = linear_problem()
    model = NonFiniteGradient(Linear(w, float((x.flatten(1) @ w).max()) + 1))
    got = run(FAB(steps=5), model, x, y, Linf(eps=1.0))
    assert torch.equal(got.x_adv, x)
    assert not got.broken.any()


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"restarts": 0},
        {"targets": -1},
        {"alpha_max": 1.5},
        {"beta": 1.0},
        {"beta": float("nan")},
        {"eta": 0.9},
    ],
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        FAB(**fields)


def test_other_threats_are_refused():
    x, y, w = linear_problem(2)
    with pytest.raises(BadInput, match="Linf and L2"):
        run(FAB(), Linear(w), x, y, L0(pixels=1))
