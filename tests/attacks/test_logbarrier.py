"""LogBarrier against closed forms and its descent of one image written out."""

from __future__ import annotations

import math

import pytest
import torch
from controls import SHAPE, Linear, Random, best_l2, best_linf, linear_problem
from torch import Tensor, nn

from verigrad.attacks.logbarrier import LogBarrier, log_gap
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator, seeded
from verigrad.core.threat import L0, L2, Linf, Threat

WIDE = {"l2": L2(eps=1e3), "linf": Linf(eps=1.0)}


def problem(n: int = 8, lead: float = 0.1) -> tuple[Linear, Tensor, Tensor]:
    x, y, w = linear_problem(n, dtype=torch.float64)
    return Linear(w, float((x.flatten(1) @ w).max()) + lead), x, y


def run(attack: LogBarrier, model: nn.Module, x: Tensor, y: Tensor, threat: Threat):
    return attack(model, x, y, threat, generator=seeded(5, "barrier", range(len(x))))


def test_the_barrier_is_that_of_the_softmax():
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 4, generator=draw, dtype=torch.float64)
    y = torch.zeros(50, dtype=torch.int64)
    p = logits.softmax(1)
    gap = p.amax(1) - p[:, 0]
    error = gap > 0
    assert error.any()
    assert not error.all()
    value = log_gap(logits, y)
    assert torch.allclose(value[error], gap[error].log())
    assert torch.allclose(value[~error], (p[:, 1:].amax(1) / p[:, 0]).log()[~error])
    tie = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.isfinite(log_gap(tie, y[:1])).all()
    saturated = torch.tensor([[0.0, 800.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_gap(saturated, y[:1]).sum(), saturated)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("norm", "factor"), [("l2", 1.05), ("linf", 1.25)])
def test_it_nears_the_closest_error(norm: str, factor: float):
    model, x, y = problem(lead=0.6)
    threat = WIDE[norm]
    best = best_l2 if norm == "l2" else best_linf
    got = run(LogBarrier(rounds=10, steps=50), model, x, y, threat)
    assert got.broken.all()
    for image, distance in zip(x, got.distance.tolist(), strict=True):
        lead = model.threshold - float(image.flatten() @ model.w.detach())
        flat, w = image.flatten().numpy(), model.w.detach().numpy()
        assert best(w, flat, distance / factor) < lead
        assert best(w, flat, distance * (1 + 1e-9)) >= lead
        assert best(w, flat, distance / factor) < best(w, flat, distance)


def descended(attack: LogBarrier, model: nn.Module, x: Tensor, streams: SampleGenerator, norm: str) -> float:
    """The nearest error of one image (1, C, H, W) of label 0, by the published loop and plain autograd."""
    measure = (lambda d: d.norm()) if norm == "l2" else (lambda d: d.abs().max())

    def errs(z: Tensor) -> bool:
        return int(model(z).argmax()) != 0

    first, here = streams.counter, x
    for k in range(attack.draws):
        noise = SampleGenerator(streams.seeds, first + 2 * k).normal(*SHAPE, dtype=x.dtype)
        here = (x + 0.01 * 1.01**k * noise).clamp(0, 1)
        if errs(here):
            break
    points = [here]
    for k in range(attack.rounds):
        alpha = attack.penalty * attack.penalty_decay**k
        share = 1.0
        for _ in range(attack.steps):
            z = here.clone().requires_grad_(True)
            p, d = model(z).softmax(1), z - x
            size = d.flatten().abs()
            m = d.square().sum() / 2 if norm == "l2" else ((500 * size).softmax(0) * size).sum()
            (gradient,) = torch.autograd.grad(m - alpha * (p.max() - p[0, 0]).log(), z)
            there = (here - attack.step_size * gradient).clamp(0, 1)
            for _ in range(attack.backtracks + 1):
                after = here + share * (there - here)
                if errs(after):
                    break
                share /= 2
            else:
                break
            moved = float((after - here).abs().max())
            here, share = after, min(1.0, 2 * share)
            points.append(here)
            if moved <= 1e-6:
                break
    nearest = min(points, key=lambda point: float(measure(point - x)))
    return halved(model, x, nearest) * float(measure(nearest - x))


def halved(model: nn.Module, x: Tensor, x_adv: Tensor) -> float:
    """Which share of the way to x_adv still errs, by eight halvings."""
    low, high = 0.0, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        errs = int(model(x + middle * (x_adv - x)).argmax()) != 0
        low, high = (low, middle) if errs else (middle, high)
    return high


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("step_size", [0.01, 0.3])
def test_its_descent_is_the_one_written_out(norm: str, step_size: float):
    model, x, y = problem(3)
    attack = LogBarrier(rounds=3, steps=12, step_size=step_size, penalty=0.02)
    got = run(attack, model, x, y, WIDE[norm])
    for i in range(len(x)):
        nearest = descended(attack, model, x[i : i + 1], seeded(5, "barrier", [i]), norm)
        assert got.distance[i].item() == pytest.approx(nearest, rel=1e-6)


def test_only_the_sample_whose_step_fails_is_looked_at_again():
    model, x, y = problem(6)
    attack = LogBarrier(rounds=2, steps=8, step_size=0.5)
    together = run(attack, model, x, y, WIDE["l2"])
    assert len(set(together.backwards.tolist())) > 1
    for i in range(6):
        alone = attack(model, x[i : i + 1], y[i : i + 1], WIDE["l2"], generator=seeded(5, "barrier", [i]))
        assert alone.forwards.item() == together.forwards[i].item()
        assert alone.backwards.item() == together.backwards[i].item()


def test_a_model_that_answers_at_random_is_left_after_finitely_many_looks():
    model, x, y = problem(4)
    torch.manual_seed(0)
    attack = LogBarrier(rounds=2, steps=5, backtracks=3, draws=40)
    got = run(attack, Random(model, sigma=1.0), x, y, WIDE["l2"])
    assert (got.backwards <= 1 + 2 * 5 * 4).all()
    assert WIDE["l2"].contains(got.x_adv, x).all()


def test_a_sample_without_a_start_keeps_its_image():
    _, x, y = problem(3)
    got = run(LogBarrier(draws=7), Linear(torch.zeros(18, dtype=torch.float64), 1.0), x, y, WIDE["l2"])
    assert not got.broken.any()
    assert torch.equal(got.x_adv, x)
    assert got.forwards.tolist() == [9] * 3  # the image, seven draws, the judging pass
    assert not got.backwards.any()


@pytest.mark.parametrize(
    "values",
    [
        {"rounds": 0},
        {"steps": 0},
        {"backtracks": 0},
        {"draws": 0},
        {"step_size": 0.0},
        {"penalty": math.inf},
        {"penalty_decay": 1.0},
    ],
)
def test_bad_values_are_refused(values: dict[str, float]):
    with pytest.raises(BadInput, match=f"'{next(iter(values))}'"):
        LogBarrier(**values)  # type: ignore[arg-type]


def test_l0_is_refused():
    model, x, y = problem(2)
    with pytest.raises(BadInput, match="L2 and Linf"):
        run(LogBarrier(), model, x, y, L0(pixels=2))
