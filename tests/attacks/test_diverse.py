"""DI²-FGSM's resizings against torch's own, their transposes, its chances, and a loop written from the paper."""

import pytest
import torch
import torch.nn.functional as F
from controls import Counting, Coupled, linear_problem, stamped
from torch import Tensor, nn

from verigrad.attacks.diverse import DI2FGSM, resizings
from verigrad.attacks.momentum import MIFGSM
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf

SIDES = ((28, 28), (32, 32), (8, 8), (9, 14))


def drawn(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_torch(image: Tensor, draw: Tensor, resize: float, interpolation: str) -> Tensor:
    """Shrink and pad one image (C, H, W) by torch's own functions."""
    sides = image.shape[1:]
    least = [int(resize * side) for side in sides]
    new = [low + int(float(draw[0]) * (side - low)) for low, side in zip(least, sides, strict=True)]
    options = {"align_corners": False} if interpolation == "bilinear" else {}
    small = F.interpolate(image[None], size=new, mode=interpolation, **options)[0]
    room = [side - size for side, size in zip(sides, new, strict=True)]
    top, left = (int(float(u) * (free + 1)) for u, free in zip(draw[1:], room, strict=True))
    return F.pad(small, (left, room[1] - left, top, room[0] - top))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("resize", [0.9, 0.5])
def test_the_resizing_is_torchs(interpolation: str, sides: tuple[int, int], resize: float):
    x = torch.rand(20, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    draw = drawn(20)
    got = resizings(draw, sides, resize, interpolation, x.dtype).of(x, 0.0)
    wanted = torch.stack([by_torch(image, one, resize, interpolation) for image, one in zip(x, draw, strict=True)])
    assert (got - wanted).norm() < 1e-6 * wanted.norm()  # torch keeps the ratio of sides in single precision
    assert len({int((image != 0).any(0).any(1).sum()) for image in got}) > (sides[0] > 10)  # several sizes


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_the_gradient_goes_back_through_it(interpolation: str):
    x = torch.rand(6, 2, 12, 10, dtype=torch.float64, requires_grad=True)
    resizing = resizings(drawn(6), (12, 10), 0.6, interpolation, x.dtype)
    gradient = torch.randn(6, 2, 12, 10, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((resizing.of(x, 0.3) * gradient).sum(), x)
    assert (resizing.pulled_back(gradient) - wanted).norm() < 1e-12 * wanted.norm()


def test_what_is_not_image_is_black():
    x = torch.full((30, 1, 10, 10), 0.7)
    for black in (0.0, -1.0):
        got = resizings(drawn(30), (10, 10), 0.5, "bilinear", x.dtype).of(x, black)
        canvas = (got - black).abs() < 1e-6
        assert (canvas | ((got - 0.7).abs() < 1e-6)).all()
        assert canvas.flatten(1).any(1).all()


def test_sizes_and_places_are_uniform_and_each_samples_own():
    """At 10 pixels and 0.6 there are sides 6, 7, 8, 9, each with chance 1/4, and 11 - side places each way."""
    draw = drawn(4000)
    canvas = resizings(draw, (10, 10), 0.6, "nearest", torch.float64).of(torch.ones(4000, 1, 10, 10).double(), 0.0)
    side = (canvas.squeeze(1).sum(1).amax(1)).long()
    assert set(side.tolist()) == {6, 7, 8, 9}
    for size in (6, 7, 8, 9):
        chosen = canvas[side == size, 0]
        assert abs(len(chosen) / 4000 - 0.25) < 0.03
        top = chosen.amax(2).argmax(1)
        left = chosen.amax(1).argmax(1)
        for first in (top, left):
            share = torch.bincount(first, minlength=11 - size) / len(first)
            assert len(share) == 11 - size
            assert (share - 1 / (11 - size)).abs().max() < 0.06


class Seen(nn.Module):
    """Remembers what it is shown."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.images.append(x.detach().clone())
        return self.module(x)


def net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(), nn.Linear(200, 24), nn.Tanh(), nn.Linear(24, 4)).double()


def images(n: int = 10) -> tuple[nn.Module, Tensor, Tensor]:
    x = torch.rand(n, 2, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return (model := net()), x, model(x).argmax(1)


def run(attack, model: nn.Module, x: Tensor, y: Tensor, threat=Linf(eps=0.1), ids=None):  # noqa: B008
    return attack(model, x, y, threat, generator=seeded(0, "di", range(len(x)) if ids is None else ids))


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_iterates_are_the_papers(momentum: float):
    """The same draws, an image at a time, torch's resizing and torch's derivative of it."""
    model, x, y = images()
    attack = DI2FGSM(steps=6, interpolation="bilinear", resize=0.6, momentum=momentum, keep="last")
    got = run(attack, model, x, y)
    generator = seeded(0, "di", range(len(x)))
    here, g = x.clone(), torch.zeros_like(x)
    coins = []
    for _ in range(6):
        draw = generator.uniform(4, dtype=torch.float64)
        for i in range(len(x)):
            leaf = here[i].clone().requires_grad_(True)
            coins.append(bool(draw[i, 0] < 0.5))
            shown = by_torch(leaf, draw[i, 1:], 0.6, "bilinear") if coins[-1] else leaf
            F.cross_entropy(model(shown[None]), y[i : i + 1]).backward()
            g[i] = momentum * g[i] + leaf.grad / leaf.grad.abs().sum()
            here[i] = (here[i] + 1.25 * 0.1 / 6 * g[i].sign()).clamp(x[i] - 0.1, x[i] + 0.1).clamp(0, 1)
    assert (got.x_adv - here).norm() < 1e-9 * here.norm()
    assert 15 < sum(coins) < 45


def test_without_chance_it_is_the_plain_climb():
    model, x, y = images()
    for momentum in (0.0, 1.0):
        plain = run(MIFGSM(steps=8, step_size=0.02, momentum=momentum), model, x, y)
        diverse = run(DI2FGSM(steps=8, step_size=0.02, momentum=momentum, probability=0.0), model, x, y)
        assert torch.equal(plain.x_adv, diverse.x_adv)
        assert torch.equal(plain.forwards, diverse.forwards)


def test_best_judges_the_iterate_and_not_what_was_made_of_it():
    """A classifier that errs on any image with a black edge: no transformed image may count."""

    class Edge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            black = (x[:, :, :, 0].sum((1, 2)) < 0.1) | (x[:, :, 0].sum((1, 2)) < 0.1)
            black = black | (x[:, :, :, -1].sum((1, 2)) < 0.1) | (x[:, :, -1].sum((1, 2)) < 0.1)
            f = x.flatten(1).mean(1) * 1e-3 - 1 + 2 * black.to(x.dtype)
            return torch.stack([torch.zeros_like(f), f], 1)

    x, y = torch.full((6, 1, 8, 8), 0.5), torch.zeros(6, dtype=torch.int64)
    got = run(DI2FGSM(steps=5, probability=1.0), Edge(), x, y)
    assert not got.broken.any()
    assert got.backwards.tolist() == [5] * 6
    assert got.forwards.tolist() == [11] * 6


def test_passes():
    model, x, y = images()
    counted = Seen(model)
    got = run(DI2FGSM(steps=12, score="margin"), counted, x, y, Linf(eps=1e-3))
    assert int(got.forwards.sum()) == sum(map(len, counted.images))
    assert got.backwards.tolist() == [12] * len(x)
    assert (got.forwards > 13).all()
    assert (got.forwards < 25).all()
    plain = run(DI2FGSM(steps=12, keep="last"), model, x, y, Linf(eps=1e-3))
    assert plain.forwards.tolist() == [13] * len(x)
    x, y, _ = linear_problem()
    x = stamped(x)
    control = Counting(nn.Sequential(nn.Flatten(), nn.Linear(18, 2)), len(x))
    untouched = run(DI2FGSM(probability=0.0), control, x, y, Linf(eps=0.005))
    assert untouched.forwards.tolist() == control.forwards.tolist()
    assert untouched.backwards.tolist() == control.backwards.tolist()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_it_is_the_same_in_any_company(keep: str):
    model, x, y = images(20)
    attack = DI2FGSM(keep=keep)
    for threat in (Linf(eps=0.04), L2(eps=0.6)):
        whole = run(attack, model, x, y, threat)
        for ids in ([*reversed(range(20))], [17, 3, 11], [4]):
            part = run(attack, model, x[ids], y[ids], threat, ids)
            assert torch.allclose(part.x_adv, whole.x_adv[ids], rtol=0, atol=1e-9)
            assert torch.equal(part.forwards, whole.forwards[ids])


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_coupled_batch_is_transformed_and_judged_whole(keep: str):
    model, x, y = images(12)
    counted = Seen(model)
    coupled = Coupled(counted)
    got = run(DI2FGSM(steps=4, keep=keep), coupled, x, y, Linf(eps=0.02))
    assert {len(shown) for shown in counted.images} == {12}
    assert set(got.forwards.tolist()) == {len(counted.images)} == {9 if keep == "best" else 5}
    with torch.no_grad():
        assert torch.equal(got.broken, coupled(got.x_adv).argmax(1) != y)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"probability": 1.5},
        {"probability": float("nan")},
        {"resize": 1.0},
        {"resize": 0.0},
        {"interpolation": "cubic"},
        {"momentum": -0.5},
        {"keep": "all"},
    ],
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        DI2FGSM(**fields)
