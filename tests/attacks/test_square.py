"""Square: its shapes and proposals against Eq. (2) and Algorithms 2 and 3 re-written in numpy, and whole runs."""

import math

import numpy as np
import pytest
import torch
from controls import Coupled, Linear, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import Status
from verigrad.attacks.square import Square, _Search, bump, bumps, recolour, regroup, stripes
from verigrad.core.errors import BadInput
from verigrad.core.scores import margin
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat

THREATS = [Linf(eps=0.1), L2(eps=0.6)]


class Recorder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.inner(x)


class Flat(nn.Module):
    """Logits (1, 0) for every image: no proposal is ever an improvement."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).to(x).repeat(len(x), 1)


def curved(size: int, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 24), nn.Softplus(beta=3), nn.Linear(24, classes)).double()


def images(n: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def run(attack: Square, model: nn.Module, x: Tensor, y: Tensor, threat: Threat):
    return attack(model, x, y, threat, generator=seeded(6, "square", range(len(x))))


def zeros(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)


def eta(side: int) -> np.ndarray:
    """Eq. (2) as sums over k, halves of opposite sign; rows and columns are counted from 1, as in the paper."""

    def half(high: int, wide: int) -> np.ndarray:
        n, out = max(high // 2, wide // 2), np.zeros((high, wide))
        for r in range(1, high + 1):
            for s in range(1, wide + 1):
                m = n - max(abs(r - high // 2 - 1), abs(s - wide // 2 - 1))
                out[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        return out / np.sqrt((out**2).sum()) if high else out

    whole = np.concatenate([half(side // 2, side), -half(side - side // 2, side)])
    return whole / np.sqrt((whole**2).sum())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 7, 12, 29])
def test_bump_is_eq_2(side: int):
    assert np.allclose(bump(side).numpy(), eta(side))
    assert float(bump(side).norm()) == pytest.approx(1)


def test_stripes_stand_upright():
    x = images(40, 3, 6, 8, low=0.3, high=0.7)
    change = (stripes(x, Linf(eps=0.1), seeded(0, "s", range(40))) - x) / 0.1
    assert torch.allclose(change.abs(), torch.ones_like(change))
    signs = change.sign()
    assert torch.equal(signs, signs[:, :, :1].expand_as(signs))
    share = signs[:, :, 0].double().mean(0)  # (C, W): a fair coin for each
    assert (share.abs() < 0.6).all()
    assert len(signs[:, :, 0].flatten(1).unique(dim=0)) == 40
    dark = stripes(torch.zeros(4, 1, 3, 3), Linf(eps=0.25), seeded(0, "s", range(4)))
    assert set(dark.unique().tolist()) == {0.0, 0.25}


@pytest.mark.parametrize(("height", "width", "side"), [(12, 10, 2), (8, 8, 1), (3, 3, 1), (28, 28, 5)])
def test_bumps_tile_the_image(height: int, width: int, side: int):
    x = images(5, 2, height, width, low=0.4, high=0.6)
    change = bumps(x, L2(eps=0.3), seeded(0, "b", range(5))) - x
    assert torch.allclose(change.flatten(1).norm(dim=1), torch.full((5,), 0.3, dtype=torch.float64))
    top, left = height % side // 2, width % side // 2
    down, across = height // side, width // side
    inner = change[:, :, top : top + down * side, left : left + across * side]
    assert torch.allclose(inner.norm(), change.norm())
    tiles = inner.reshape(5, 2, down, side, across, side).transpose(3, 4).reshape(-1, side, side)
    shapes = [sign * shape for shape in (eta(side), eta(side).T) for sign in (1, -1)]
    kinds = torch.tensor(np.stack(shapes)) * tiles.flatten(1).norm(dim=1).mean()
    far = (tiles[:, None] - kinds).flatten(2).norm(dim=2)
    assert (far.amin(1) < 1e-9).all()
    assert len(far.argmin(1).unique()) == (4 if side > 1 else 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_recoloured_square_is_never_what_it_was(channels: int):
    x = images(200, channels, 7, 9, low=0.3, high=0.7)
    streams, threat = seeded(0, "r", range(200)), Linf(eps=0.1)
    here = stripes(x, threat, streams)
    corners = set()
    for _ in range(6):
        point = recolour(here, x, threat, 9 / 63, streams)
        assert torch.allclose((point - x).abs(), torch.full_like(x, 0.1))
        moved = (point != here).any(1)
        assert moved.flatten(1).any(1).all()
        for each in moved:
            rows, columns = each.any(1).nonzero().flatten(), each.any(0).nonzero().flatten()
            assert rows[-1] - rows[0] < 3
            assert columns[-1] - columns[0] < 3
            corners.add((int(rows[0]), int(columns[0])))
        here = point
    assert max(row for row, _ in corners) >= 4  # 7 - 3: the last place is reached
    assert max(column for _, column in corners) >= 6
    one = recolour(x, x, threat, 9 / 63, streams) - x  # from x itself the whole square shows
    assert ((one != 0).any(1).flatten(1).sum(1) == 9).all()
    colours = [len(each[:, each.any(0)].unique(dim=1).flatten()) for each in one.round(decimals=6)]
    assert set(colours) == {channels}  # one sign a channel
    largest = recolour(x, x, threat, 1.0, streams) != x
    assert (largest.any(1).flatten(1).sum(1) == 36).all()  # a side of 6: one less than the image's, as in the code


def test_the_squares_shrink_by_the_schedule():
    """Their sides on a 20×20 image at a budget of 1000, by the table of the authors' code at 10 000."""
    table = [(10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256)]
    model, x = Recorder(Flat()), images(12, 1, 20, 20, low=0.3, high=0.7)
    run(Square(queries=1000), model, x, zeros(x), Linf(eps=0.1))
    assert len(model.seen) == 1 + 1000 + 1
    start = model.seen[1]
    for query in (1, 2, 5, 6, 20, 21, 50, 51, 100, 101, 200, 400, 600, 800, 801, 999):
        divisor = next((d for last, d in table if query * 10 <= last), 512)
        side = max(min(round(math.sqrt(0.8 / divisor * 400)), 19), 1)
        moved = (model.seen[1 + query] != start)[:, 0]
        rows, columns = moved.any(2).sum(1), moved.any(1).sum(1)
        assert int(torch.maximum(rows, columns).max()) <= side
        assert moved.flatten(1).any(1).all()
        assert int(rows.max()) > 0.6 * side


def algorithm_3(here: np.ndarray, x: np.ndarray, eps: float, side: int, draw: np.ndarray) -> np.ndarray:
    """Lines 1 to 11 for one image (C, H, W), with the same draws."""
    channels, height, width = x.shape
    v = here - x
    r1, s1 = int(draw[0] * (height - side + 1)), int(draw[1] * (width - side + 1))
    r2, s2 = int(draw[2] * (height - side + 1)), int(draw[3] * (width - side + 1))
    w1, w2 = np.zeros((height, width), bool), np.zeros((height, width), bool)
    w1[r1 : r1 + side, s1 : s1 + side] = True
    w2[r2 : r2 + side, s2 : s2 + side] = True
    unused = max(eps**2 - (v**2).sum(), 0)
    shape, out = eta(side) if draw[4] >= 0.5 else eta(side).T, v.copy()
    for c in range(channels):
        old = v[c, w1]
        wanted = (1 if draw[5 + c] >= 0.5 else -1) * shape.flatten() + old / (np.sqrt((old**2).sum()) + 1e-12)
        room = np.sqrt((v[c, w1 | w2] ** 2).sum() + unused / channels)
        out[c, w2] = 0
        out[c, w1] = wanted / np.sqrt((wanted**2).sum()) * room
    return np.clip(x + out, 0, 1)


@pytest.mark.parametrize("spread", [(0.4, 0.6), (0.0, 1.0)], ids=["free", "boxed"])
def test_regrouping_is_algorithm_3(spread: tuple[float, float]):
    """The `boxed` images are cut by the box, so that a part of eps is unused and shared out."""
    x, threat = images(30, 3, 9, 11, low=spread[0], high=spread[1]), L2(eps=2.0 if spread[0] == 0 else 0.3)
    here = bumps(x, threat, seeded(0, "g", range(30)))
    for turn in range(3):
        streams = seeded(1, f"g{turn}", range(30))
        draws = seeded(1, f"g{turn}", range(30)).uniform(8, dtype=torch.float64).numpy()
        point = regroup(here, x, threat, 25 / 99, streams)
        wanted = [algorithm_3(here[i].numpy(), x[i].numpy(), threat.eps, 5, draws[i]) for i in range(30)]
        length = (torch.tensor(np.stack(wanted)) - x).flatten(1).norm(dim=1)
        assert (length <= threat.eps + 1e-9).all()
        if spread[0] > 0:
            assert torch.allclose(point, torch.tensor(np.stack(wanted)), atol=1e-9)
            assert torch.allclose(length, torch.full_like(length, threat.eps))
        else:
            assert (length < threat.eps - 1e-3).any()
            gap = (point - torch.tensor(np.stack(wanted))).flatten(1).norm(dim=1)
            assert (gap < 1e-9).all()
        here = point


def test_a_whole_run_with_the_same_draws():
    """Linf, one image: only what raises the margin is kept."""
    model, x, threat, queries = curved(36), images(1, 1, 6, 6), Linf(eps=0.05), 60
    y = model(x).argmax(1)
    got = run(Square(queries=queries), model, x, y, threat)
    assert not got.broken.any()
    draws = seeded(6, "square", [0])
    with torch.no_grad():
        best = (x + 0.05 * draws.signs(1, 1, 6, dtype=torch.float64)).clamp(0, 1)
        best = torch.minimum(torch.maximum(best, x - 0.05), x + 0.05)
        value, kept = margin(model(best), y), 0
        for query in range(1, queries):
            at = query / queries * 10_000
            p = 0.8 / 2 ** sum(at > bound for bound in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
            point = recolour(best, x, threat, p, draws)
            if (now := margin(model(point), y)) > value:
                best, value, kept = point, now, kept + 1
    assert 3 < kept < queries - 1
    assert (got.x_adv - best).norm() < 1e-9


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_it_does_better_than_its_start_and_needs_no_gradient(threat: Threat):
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return inner(x.detach())

    inner, x = curved(64), images(20, 1, 8, 8)
    y = inner(x).argmax(1)
    few, many = (run(Square(queries=n), Cut(), x, y, threat) for n in (1, 300))
    rise = margin(inner(many.x_adv), y) - margin(inner(few.x_adv), y)
    assert (rise[~few.broken] > 0).all()
    assert many.broken[few.broken].all()
    assert (many.backwards == 0).all()


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_passes(threat: Threat):
    x = images(4, 1, 8, 8)
    assert run(Square(queries=9, restarts=3), Flat(), x, zeros(x), threat).forwards.tolist() == [1 + 27 + 1] * 4
    wrong = run(Square(queries=9), Flat(), x, 1 - zeros(x), threat)
    assert wrong.forwards.tolist() == [2] * 4
    assert wrong.broken.all()
    assert torch.equal(wrong.x_adv, x)


def test_the_broken_leave_and_the_rest_restart():
    model, x = curved(64), images(30, 1, 8, 8)
    y = model(x).argmax(1)
    seen = Recorder(model)
    got = run(Square(queries=20, restarts=3), seen, x, y, Linf(eps=0.12))
    sizes = [len(part) for part in seen.seen]
    assert 0 < got.broken.sum() < 30
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    assert (got.forwards[~got.broken] == 62).all()
    assert (got.forwards[got.broken] < 62).all()
    once = run(Square(queries=20), model, x, y, Linf(eps=0.12))
    assert got.broken[once.broken].all()
    assert torch.equal(got.forwards[once.broken], once.forwards[once.broken])


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (2, 1, 9), (1, 5, 17), (4, 8, 6)], ids=str)
def test_any_shape(threat: Threat, shape: tuple[int, int, int]):
    x = images(6, *shape).float()
    got = run(Square(queries=40), Flat(), x, zeros(x), threat)
    assert threat.contains(got.x_adv, x).all()
    assert (got.distance > 0).all()
    assert int(got.forwards[0]) == 42


def test_what_is_no_number_is_never_kept():
    """Logits are NaN wherever the image's mean rises by more than 0.03, and the margin rises with the mean."""

    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = x.flatten(1).mean(1)
            z = torch.stack([torch.ones_like(height), height], dim=1)
            return torch.where((height > edge)[:, None], torch.nan, z)

    x = images(8, 1, 6, 6, low=0.3, high=0.6)
    edge = x.flatten(1).mean(1) + 0.03
    got = run(Square(queries=200), Cliff(), x, zeros(x), Linf(eps=0.1))
    height = got.x_adv.flatten(1).mean(1)
    assert (height <= edge).all()
    assert (height > edge - 0.03).all()
    assert (got.status == Status.NON_FINITE_LOGITS).all()
    assert not got.broken.any()


def test_a_coupled_batch_is_asked_as_a_whole():
    x, y, w = linear_problem(6)
    model = Recorder(Coupled(Linear(w, 100.0), strength=0.3))
    got = run(Square(queries=10), model, x, y, Linf(eps=0.1))
    assert {len(part) for part in model.seen} == {6}
    assert got.forwards.tolist() == [12] * 6


def test_a_sparing_search_gives_up_where_nothing_is_gained():
    x = images(3, 1, 5, 5)
    for threat in THREATS:
        assert run(Square(queries=100, sparing=True), Flat(), x, zeros(x), threat).forwards.tolist() == [22] * 3
        assert run(Square(queries=100), Flat(), x, zeros(x), threat).forwards.tolist() == [102] * 3
        coupled = run(Square(queries=100, sparing=True), Coupled(Flat()), x, zeros(x), threat)
        assert coupled.forwards.tolist() == [102] * 3


def test_a_sparing_search_hopes_for_twice_the_last_gain_in_each_doubling():
    value, marked = torch.tensor([-1.0, -1.0, -1.0, -torch.inf]), torch.tensor([-1.6, -1.4, -1.0, -torch.inf])
    some = torch.zeros(4)
    search = _Search(some, some, value, marked, some, some)
    assert search.hopes(1.0).tolist() == [True, False, False, False]
    assert search.hopes(2.0).tolist() == [True, True, False, False]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_sparing_search_is_the_first_part_of_the_full_one(threat: Threat):
    x, y, w = linear_problem()
    model = Linear(w, (x.flatten(1).double() @ w.double()).max().item() + 0.2)
    full, sparing = (run(Square(queries=200, sparing=one), model, x, y, threat) for one in (False, True))
    assert sparing.broken.any()
    assert not (sparing.broken & ~full.broken).any()
    assert torch.equal(full.x_adv[sparing.broken], sparing.x_adv[sparing.broken])
    assert torch.equal(full.forwards[sparing.broken], sparing.forwards[sparing.broken])
    assert sparing.forwards.sum() < full.forwards.sum()


@pytest.mark.parametrize("fields", [{"queries": 0}, {"restarts": 0}, {"p_init": 0.0}, {"p_init": 1.5}])
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        Square(**fields)


def test_l0_is_refused():
    x, y, w = linear_problem(2)
    with pytest.raises(BadInput, match="Linf and L2"):
        run(Square(), Linear(w), x, y, L0(pixels=2))
