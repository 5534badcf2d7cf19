"""Auto-PGD: its checkpoints, whole runs re-written for one sample, closed forms, passes, and what must not go wrong."""

import math

import pytest
import torch
from controls import Coupled, Linear, Saturated, linear_problem
from torch import Tensor, nn

from verigrad.attacks.autopgd import AutoPGD
from verigrad.attacks.base import Status
from verigrad.attacks.pgd import PGD
from verigrad.attacks.step_halving import checkpoints
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat


class Wavy(nn.Module):
    """Five classes whose logits rise and fall many times within the ball; class 0 leads everywhere."""

    def __init__(self, lead: float = 100.0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(3 * torch.randn(18, 12, generator=draw, dtype=torch.float64))
        self.v = nn.Parameter(torch.randn(12, 5, generator=draw, dtype=torch.float64))
        self.lead = torch.tensor([lead, 0, 0, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ self.w) @ self.v + self.lead


class Recorder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.inner(x)


def run(attack: AutoPGD, model: nn.Module, x: Tensor, y: Tensor, threat: Threat):
    return attack(model, x, y, threat, generator=seeded(4, "autopgd", range(len(x))))


def middle_images(n: int) -> tuple[Tensor, Tensor]:
    """Images so far from the box's border that an eps of 0.3 does not reach it."""
    draw = torch.Generator().manual_seed(1)
    return 0.4 + 0.2 * torch.rand(n, 2, 3, 3, generator=draw, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)


def test_checkpoints_of_the_paper():
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert list(checkpoints(20)) == [5, 9, 12, 14, 16, 18, 19]  # ⌈20·(0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93)⌉
    assert checkpoints(1) == {}
    for steps in range(1, 300):
        at, periods = list(checkpoints(steps)), list(checkpoints(steps).values())
        assert at == sorted(set(at))
        assert sum(periods) == (at[-1] if at else 0)


def ball(z: list[float], x: list[float], eps: float, norm: str) -> list[float]:
    """The projection where the box is out of reach, in plain numbers."""
    d = [a - b for a, b in zip(z, x, strict=True)]
    if norm == "linf":
        return [b + min(max(c, -eps), eps) for b, c in zip(x, d, strict=True)]
    length = math.sqrt(sum(c * c for c in d))
    return [b + c * min(1.0, eps / max(length, 1e-300)) for b, c in zip(x, d, strict=True)]


def by_the_book(model: nn.Module, start: Tensor, image: Tensor, eps: float, norm: str, steps: int, score):
    """Algorithm 1 for one image, with plain lists and a history of everything. Returns the best point and all η."""

    def look(point: list[float]) -> tuple[float, list[float]]:
        at = torch.tensor(point, dtype=torch.float64).reshape(1, 2, 3, 3).requires_grad_(True)
        value = score(model(at)[0])
        return value.item(), torch.autograd.grad(value, at)[0].flatten().tolist()

    def up(gradient: list[float]) -> list[float]:
        if norm == "linf":
            return [float((g > 0) - (g < 0)) for g in gradient]
        length = math.sqrt(sum(g * g for g in gradient))
        return [g / length for g in gradient]

    x = image.flatten().tolist()
    points, eta = [start.flatten().tolist()], [2 * eps]
    f, g = look(points[0])
    values, best, best_f, best_g = [f], points[0], f, g
    f_max, etas, rises, share, period, w = [f], [eta[0]], 0, 0.22, 0.22, 0
    for k in range(steps):
        now, old = points[-1], points[-2] if k else points[-1]
        z = ball([p + eta[-1] * u for p, u in zip(now, up(g), strict=True)], x, eps, norm)
        if k:
            z = ball([p + 0.75 * (q - p) + 0.25 * (p - o) for p, q, o in zip(now, z, old, strict=True)], x, eps, norm)
        points.append(z)
        f, g = look(z)
        rises += f > values[-1]
        values.append(f)
        if f > best_f:
            best, best_f, best_g = z, f, g
        if k + 1 == math.ceil(round(share * steps, 9)) and k + 1 < steps:
            first = rises < 0.75 * (k + 1 - w)
            second = etas[-1] == eta[-1] and f_max[-1] == best_f
            etas.append(eta[-1])
            f_max.append(best_f)
            if first or second:
                eta.append(eta[-1] / 2)
                points[-1], g, values[-1] = best, best_g, best_f
            period, w, rises = max(period - 0.03, 0.06), k + 1, 0
            share += period
    return torch.tensor(best, dtype=torch.float64).reshape(image.shape), len(eta) - 1


@pytest.mark.parametrize("threat", [Linf(eps=0.2), L2(eps=0.4)], ids=str)
@pytest.mark.parametrize("score", ["margin", "cross_entropy"])
def test_whole_runs_by_the_book(threat: Linf | L2, score: str):
    """The best points of the batch are those of Algorithm 1, sample by sample; they halve at different checkpoints."""
    model, (x, y) = Wavy(lead=18.0), middle_images(8)
    got = run(AutoPGD(steps=60, score=score), model, x, y, threat)
    assert not got.broken.any()
    start = threat.sample(x, seeded(4, "autopgd", range(8)))

    def climbed(z: Tensor) -> Tensor:
        return z[1:].amax() - z[0] if score == "margin" else z.logsumexp(0) - z[0]

    norm = type(threat).__name__.lower()
    runs = [by_the_book(model, start[i], x[i], threat.eps, norm, 60, climbed) for i in range(8)]
    wanted = torch.stack([best for best, _ in runs])
    assert (got.x_adv - wanted).norm() < 1e-6 * (wanted - x).norm()
    assert len({halvings for _, halvings in runs}) > 1


@pytest.mark.parametrize("threat", [Linf(eps=0.2), L2(eps=0.6)], ids=str)
def test_it_settles_on_a_peak_inside_the_ball(threat: Threat):
    """The score is -(⟨w, x⟩ - peak)²: steps of 2·eps would overshoot for ever, halved ones close in."""

    class Peak(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = -((x.flatten(1) @ w - peak) ** 2)
            return torch.stack([torch.full_like(z, 1.0), z], dim=1)

    w = torch.linspace(-1, 1, 18, dtype=torch.float64)
    x, y = middle_images(6)
    peak = x.flatten(1) @ w + 0.1
    got = run(AutoPGD(steps=200, score="margin"), Peak(), x, y, threat).x_adv.flatten(1) @ w
    bouncing = PGD(steps=200, step_size=2 * threat.size, score="margin", keep="last")
    last = bouncing(Peak(), x, y, threat, generator=seeded(4, "autopgd", range(6))).x_adv.flatten(1) @ w
    assert (got - peak).norm() < 0.02 * (last - peak).norm()


def test_a_score_that_rises_but_never_above_its_best_is_a_stall():
    """Condition 2 alone: the start scores 10, then the score climbs from -60 by 1 a step, uphill always the same way.

    At 22 the sample goes back to its start with half the step; at 41 it does not, as the step has just changed; at 57
    it does. At eps = 0.1 a first step of 2·eps or eps ends on the ball, and after a return the momentum leads back:
    0.75·eps - 0.25·eps, and 0.75·eps/2 - 0.25·eps with the step size halved twice.
    """

    class Scripted(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            value = 10.0 if self.calls == 0 else self.calls - 61.0
            self.calls += 1
            uphill = x.flatten(1).sum(1)
            return torch.stack([torch.full_like(uphill, 100), uphill - uphill.detach() + value], dim=1)

    x, y = middle_images(1)
    model = Recorder(Scripted())
    run(AutoPGD(score="margin", random_start=False), model, x, y, Linf(eps=0.1))
    moves = [float((point - x).mean()) / 0.1 for point in model.seen]
    assert moves[:2] == pytest.approx([0, 1])
    assert moves[22:24] == pytest.approx([1, 0.5])
    assert moves[41:43] == pytest.approx([1, 1])
    assert moves[57:59] == pytest.approx([1, 0.75 * 0.5 - 0.25])


def test_targets_are_tried_in_the_order_of_their_logits():
    """Class 1 is near but constant, and hides class 2, which is far and within reach, from the untargeted margin."""

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            far = 40 * (x.flatten(1).mean(1) - 0.6)
            return torch.stack(
                [torch.ones_like(far), torch.full_like(far, 0.9), far, torch.full_like(far, -100)], dim=1
            )

    x, y = middle_images(5)
    found = {n: run(AutoPGD(steps=10, score="margin", targets=n), Hidden(), x, y, Linf(eps=0.2)) for n in (0, 1, 2, 9)}
    assert {n: int(got.broken.sum()) for n, got in found.items()} == {0: 0, 1: 0, 2: 5, 9: 5}
    assert (found[0].status == Status.ZERO_GRADIENT).all()
    assert found[2].forwards.tolist() == found[9].forwards.tolist()  # class 2 is the second of them


@pytest.mark.parametrize("score", ["cross_entropy", "margin", "dlr"])
def test_passes(score: str):
    model, (x, y) = Wavy(), middle_images(4)
    plain = run(AutoPGD(steps=7, restarts=3, score=score), model, x, y, Linf(eps=0.05))
    assert plain.forwards.tolist() == [3 * 8 + 1] * 4
    assert plain.backwards.tolist() == [3 * 7] * 4
    aimed = run(AutoPGD(steps=7, targets=3, restarts=2, score=score), model, x, y, Linf(eps=0.05))
    assert aimed.forwards.tolist() == [1 + 6 * 8 + 1] * 4
    assert aimed.backwards.tolist() == [6 * 7] * 4
    more = run(AutoPGD(steps=2, targets=9, score=score), model, x, y, Linf(eps=0.05))
    assert more.backwards.tolist() == [4 * 2] * 4  # five classes have four wrong ones


def test_broken_samples_leave():
    """Each image keeps its own threshold when others have left: it is known by its nearest clean image."""

    class Own(nn.Module):
        def forward(self, now: Tensor) -> Tensor:
            who = torch.cdist(now.flatten(1), x.flatten(1)).argmin(1)
            second = now.flatten(1) @ w - threshold[who]
            return torch.stack([torch.zeros_like(second), second], dim=1)

    x, y, w = linear_problem()
    # Some err from the start on, some never.
    threshold = x.flatten(1) @ w + torch.linspace(-0.05, 0.25, len(x)) * w.abs().sum()
    model = Recorder(Own())
    got = run(AutoPGD(steps=30, score="margin"), model, x, y, Linf(eps=0.1))
    sizes = [len(part) for part in model.seen]
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert sizes[-2] == int((~got.broken).sum()) < sizes[0]
    assert (got.forwards[~got.broken] == 32).all()
    assert (got.forwards[got.broken] < 10).all()


def test_only_the_unbroken_are_restarted():
    model, (x, y) = Wavy(lead=9.0), middle_images(30)
    one = run(AutoPGD(steps=10, score="margin"), model, x, y, Linf(eps=0.1))
    four = run(AutoPGD(steps=10, score="margin", restarts=4), model, x, y, Linf(eps=0.1))
    assert one.broken.any()
    assert four.broken[one.broken].all()
    assert four.broken.sum() > one.broken.sum()
    assert torch.equal(four.forwards[one.broken], one.forwards[one.broken])
    assert torch.equal(four.x_adv[one.broken], one.x_adv[one.broken])


@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.4)], ids=str)
def test_a_gradient_of_zero_moves_nothing_and_breaks_nothing(threat: Threat):
    x, y, w = linear_problem()
    far = Saturated(Linear(w, 50.0))
    got = run(AutoPGD(), far, x, y, threat)
    assert (got.status == Status.ZERO_GRADIENT).all()
    assert torch.equal(got.x_adv, threat.sample(x, seeded(4, "autopgd", range(len(x)))))
    still = run(AutoPGD(random_start=False), far, x, y, threat)
    assert torch.equal(still.x_adv, x)
    # The margin of the same model has its gradient.
    moved = run(AutoPGD(score="margin"), far, x, y, threat)
    assert (moved.status == Status.DONE).all()
    assert (moved.distance > 0.9 * threat.size).all()


def test_what_is_no_number_is_never_the_best_point():
    """Uphill the logits turn to NaN. The best point is where they are still finite."""

    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = x.flatten(1).mean(1)
            z = torch.stack([torch.ones_like(height), height], dim=1)
            return torch.where((height > edge)[:, None], torch.nan, z)

    x, y = middle_images(6)
    edge = x.flatten(1).mean(1) + 0.05
    got = run(AutoPGD(steps=40, score="margin", random_start=False), Cliff(), x, y, Linf(eps=0.2))
    assert not got.broken.any()
    assert (got.status == Status.NON_FINITE_LOGITS).all()
    height = got.x_adv.flatten(1).mean(1)
    assert (height <= edge).all()
    assert (height >= x.flatten(1).mean(1)).all()


def test_a_coupled_batch_is_shown_whole_and_left_once_all_err():
    x, y, w = linear_problem(6)
    for threshold, forwards in ((100.0, 10 + 1), (-100.0, 2)):
        model = Recorder(Coupled(Linear(w, threshold), strength=0.3))
        got = run(AutoPGD(steps=10, score="margin"), model, x, y, Linf(eps=0.1))
        assert {len(part) for part in model.seen} == {6}
        assert got.forwards.tolist() == [forwards] * 6


@pytest.mark.parametrize("fields", [{"steps": 0}, {"restarts": 0}, {"score": "loss"}, {"targets": -1}])
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        AutoPGD(**fields)


def test_l0_and_too_few_classes_are_refused():
    x, y, w = linear_problem(2)
    with pytest.raises(BadInput, match="Linf and L2"):
        run(AutoPGD(), Linear(w), x, y, L0(pixels=2))
    with pytest.raises(BadInput, match="at least 4 classes"):
        run(AutoPGD(targets=9, score="dlr"), Linear(w, 100.0), x, y, Linf(eps=0.1))
