"""Objectives: one contract for all, and the closed form on a linear model."""

import pytest
import torch
from controls import linear_problem
from torch import nn

from verigrad.attacks.pgd import PGD
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.natural import Natural

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
ALL = [
    Natural(),
    Adversarial(threat=Linf(eps=0.1)),
    Adversarial(threat=L2(eps=0.5), attack=PGD(steps=3, keep="last")),
    Adversarial(threat=L0(pixels=2), attack=PGD(steps=3, keep="last")),
]


def net() -> nn.Module:
    torch_net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in torch_net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return torch_net.train()


def streams(unit: str = "unit"):
    return seeded(0, unit, range(len(X)))


@pytest.mark.parametrize("objective", ALL, ids=lambda one: type(one).__name__)
def test_an_objective_keeps_the_contract(objective):
    """The total is a finite scalar whose gradient reaches every weight, parts carry no graph, streams decide all."""
    model = net()
    loss = objective(model, X, Y, generator=streams())
    assert loss.total.shape == ()
    assert torch.isfinite(loss.total)
    loss.total.backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in model.parameters() if weight.dim() > 1)
    assert loss.parts
    assert not any(part.requires_grad or part.dim() for part in loss.parts.values())
    assert all(part.training for part in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(objective(net(), X, Y, generator=streams()).total, loss.total)
    assert int(model[1].num_batches_tracked) == 1  # the loss alone is in training mode


@pytest.mark.parametrize("objective", ALL, ids=lambda one: type(one).__name__)
def test_an_objective_leaves_the_global_generator(objective):
    model = net()
    state = torch.random.get_rng_state()
    objective(model, X, Y, generator=streams())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_random_start_is_drawn():
    objective = Adversarial(threat=Linf(eps=0.1), attack=PGD(steps=1, step_size=1e-9, keep="last"))
    assert objective(net(), X, Y, generator=streams("a")).total != objective(net(), X, Y, generator=streams("b")).total


def test_natural_is_cross_entropy():
    model = net().eval()
    got = Natural()(model, X, Y, generator=streams())
    log_p = model(X).detach().double().log_softmax(1)
    assert got.total.item() == pytest.approx(float(-log_p.gather(1, Y[:, None]).mean()), rel=1e-5)
    assert float(got.parts["accuracy"]) == pytest.approx(float((log_p.argmax(1) == Y).double().mean()))


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_on_a_linear_model_the_inner_maximum_is_reached(eps: float):
    """Linf without the box binding: the worst logit gap is ⟨w, x⟩ + eps·‖w‖₁."""
    _, _, w = linear_problem()
    x = torch.full((3, 2, 3, 3), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
    loss = Adversarial(threat=Linf(eps=eps))(model, x, y, generator=seeded(0, "linear", range(3)))
    gap = 0.5 * w.sum() + eps * w.abs().sum()
    assert loss.total.item() == pytest.approx(float(nn.functional.softplus(gap)), rel=1e-5)
