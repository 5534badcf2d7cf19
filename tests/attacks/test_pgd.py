"""PGD and FGSM against a textbook loop, and what the options mean."""

import pytest
import torch
import torch.nn.functional as F
from controls import Counting, Coupled, Linear, Saturated, linear_problem, stamped
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf, Threat


def textbook_pgd(model: nn.Module, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, start: Tensor) -> Tensor:
    """PGD as anybody would write it: cross-entropy, a fixed step, clip after the ball, the last iterate."""
    step_size = 2.5 * eps / steps
    x_adv = (x + start).clamp(0, 1)
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_(True)
        F.cross_entropy(model(x_adv), y, reduction="sum").backward()
        gradient = x_adv.grad
        if norm == "linf":
            delta = (x_adv + step_size * gradient.sign() - x).clamp(-eps, eps)
        else:
            unit = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
            delta = x_adv + step_size * unit - x
            length = delta.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, 1, 1, 1)
            delta = delta * (eps / length).clamp(max=1)
        x_adv = (x + delta).clamp(0, 1)
    return x_adv.detach()


def left(model: nn.Module, x_adv: Tensor, y: Tensor) -> int:
    with torch.no_grad():
        return int((model(x_adv).argmax(1) == y).sum())


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small conv net, trained for a few seconds, and 120 test images."""
    flat, target = load_digits(return_X_y=True)
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(flat, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(target)[order]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(24 * 9, 10),
    )  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for rows in torch.randperm(1200).split(100):
            adam.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            adam.step()
    model.eval()
    assert left(model, x[-120:], y[-120:]) > 108
    return model, x[-120:], y[-120:]


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("linf", 0.06), ("linf", 0.1), ("l2", 0.3), ("l2", 0.6)])
@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("random_start", [False, True])
def test_never_weaker_than_the_textbook(digits, norm: str, eps: float, steps: int, random_start: bool):
    model, x, y = digits
    threat = Linf(eps=eps) if norm == "linf" else L2(eps=eps)
    attack = PGD(steps=steps, random_start=random_start)
    ours = attack(model, x, y, threat, generator=seeded(0, "pgd", range(len(x))))
    generator = seeded(0, "pgd", range(len(x)))  # the same start for both
    start = threat.sample(x, generator) - x if random_start else torch.zeros_like(x)
    theirs = textbook_pgd(model, x, y, norm, eps, steps, start)
    assert int((~ours.broken).sum()) == left(model, ours.x_adv, y)
    assert int((~ours.broken).sum()) <= left(model, theirs, y)


@pytest.mark.parametrize("eps", [0.05, 0.1])
def test_never_weaker_on_the_linear_model(eps: float):
    x, y, w = linear_problem(200)
    model = Linear(w, float((x.flatten(1) @ w).quantile(0.6)) + 0.5)
    ours = PGD()(model, x, y, Linf(eps=eps), generator=seeded(0, "pgd", range(200)))
    theirs = textbook_pgd(model, x, y, "linf", eps, 20, torch.zeros_like(x))
    assert 0 < int((~ours.broken).sum()) <= left(model, theirs, y) < 200


def test_the_margin_breaks_what_saturation_hides(digits):
    model, x, y = digits
    masked, threat = Saturated(model), Linf(eps=0.15)
    survivors = {
        score: int((~PGD(score=score)(masked, x, y, threat, generator=seeded(0, "s", range(120))).broken).sum())
        for score in ("cross_entropy", "margin")
    }
    assert survivors["margin"] < survivors["cross_entropy"] / 2


def test_every_start_is_judged():
    """One step from each random start: the end of a start counts although only the last start's is looked at last."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 3))
    x, _, _ = linear_problem(300)
    y = model(x).argmax(1)
    threat = Linf(eps=0.12)

    def broken(restarts: int) -> Tensor:
        attack = PGD(steps=1, restarts=restarts, score="margin")
        return attack(model, x, y, threat, generator=seeded(0, "restarts", range(300))).broken

    one, two, eight = broken(1), broken(2), broken(8)
    assert (two | ~one).all()  # what one start breaks, two starts break
    assert (eight | ~two).all()
    assert one.sum() < eight.sum()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_restarts_attack_only_the_survivors(keep: str):
    x, y, w = linear_problem()
    x = stamped(x)
    model = Counting(Linear(w, float((x.flatten(1) @ w).median())), len(x))
    attack = PGD(steps=4, restarts=3, score="margin", keep=keep)
    got = attack(model, x, y, Linf(eps=0.01), generator=seeded(0, "restarts", range(len(x))))
    assert got.forwards.tolist() == model.forwards.tolist()
    survivors = ~got.broken
    assert survivors.any()
    assert got.broken.any()
    assert (got.backwards[survivors] == 12).all()
    assert (got.forwards[survivors] == 12 + 2 + 1).all()
    assert (got.backwards[got.broken] < 12).any()


def test_keep_last_moves_everybody_through_every_step():
    x, y, w = linear_problem()
    model = Linear(w, float((x.flatten(1) @ w).median()))
    last = PGD(keep="last")(model, x, y, Linf(eps=0.1), generator=seeded(0, "keep", range(len(x))))
    best = PGD(keep="best")(model, x, y, Linf(eps=0.1), generator=seeded(0, "keep", range(len(x))))
    assert last.backwards.tolist() == [20] * len(x)
    assert best.backwards.sum() < last.backwards.sum()
    assert (best.broken | ~last.broken).all()


def test_best_keeps_the_iterate_that_errs_when_a_later_one_does_not():
    class Band(nn.Module):
        """Wrong only where 0.5 < x < 0.6, and pushed to the right everywhere."""

        def forward(self, x):
            value = x.flatten(1)[:, 0]
            wrong = (value > 0.5) & (value < 0.6)
            height = value - value.detach() + wrong.float() - 0.5
            return torch.stack([torch.zeros_like(height), height], 1)

    x, y = torch.full((1, 1, 1, 1), 0.44), torch.zeros(1, dtype=torch.int64)
    got = {
        keep: PGD(steps=3, step_size=0.1, random_start=False, keep=keep, score="margin")(
            Band(), x, y, Linf(eps=0.3), generator=seeded(0, "keep", [0])
        )
        for keep in ("best", "last")
    }
    assert got["best"].broken.all()
    assert got["best"].x_adv.item() == pytest.approx(0.54)
    assert not got["last"].broken.any()
    assert got["last"].x_adv.item() == pytest.approx(0.74)


def test_coupled_samples_that_err_only_rest():
    """A sample broken early is shown again in every later batch, and climbs on once it is right again."""
    x, y, w = linear_problem()
    scores = x.flatten(1) @ w
    model = Coupled(Linear(w, float(scores.median()) + 0.2), strength=-0.9)
    attack = PGD(steps=40, score="margin")
    got = attack(model, x, y, Linf(eps=0.1), generator=seeded(0, "coupled", range(len(x))))
    with torch.no_grad():
        assert torch.equal(got.broken, model(got.x_adv).argmax(1) == 1)
    assert len(set(got.forwards.tolist())) == 1


def test_default_step_reaches_the_far_side_of_the_ball():
    for steps in (1, 3, 20, 100):
        x, y, w = linear_problem(4)
        got = PGD(steps=steps, random_start=False)(
            Linear(w, 10.0), x, y, Linf(eps=0.05), generator=seeded(0, "far", range(4))
        )
        assert got.distance.tolist() == pytest.approx([0.05] * 4, abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"restarts": 0},
        {"step_size": -1.0},
        {"step_size": float("nan")},
        {"score": "loss"},
        {"keep": "all"},
    ],
)
def test_bad_options(fields: dict):
    with pytest.raises(BadInput, match=next(iter(fields))):
        PGD(**fields)


def test_fgsm_is_one_full_step_from_the_image():
    x, y, w = linear_problem()
    for threat in (Linf(eps=0.1), L2(eps=0.3)):
        got = FGSM(score="margin")(Linear(w, 10.0), x, y, threat, generator=seeded(0, "f", range(len(x))))
        direction = w.sign() if isinstance(threat, Linf) else w / w.norm()
        full: Threat = threat
        assert torch.allclose(got.x_adv, full.project(x + full.size * direction.reshape(1, 2, 3, 3), x), atol=1e-6)
        assert got.forwards.tolist() == [2] * len(x)
        assert got.backwards.tolist() == [1] * len(x)
    with pytest.raises(BadInput, match="score"):
        FGSM(score="loss")


class Waits(TorchDispatchMode):
    """Counts the operations whose result the host has to wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in self.WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_host_waits_once_a_step_to_see_who_is_left(keep: str):
    x, y, w = linear_problem()
    waited = []
    for steps in (3, 13):
        with Waits() as waits:
            PGD(steps=steps, keep=keep)(
                Linear(w, 1e3), x, y, Linf(eps=0.01), generator=seeded(0, "waits", range(len(x)))
            )
        waited.append(waits.count)
    assert waited[1] - waited[0] == 10
    with Waits() as waits:
        assert bool((x > 0.5).any())
    assert waits.count == 1
