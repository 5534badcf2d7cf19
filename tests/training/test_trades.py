"""TRADES against a rewriting of the released code's formulation, step by step, and in extremes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat
from verigrad.training.objectives.natural import Natural
from verigrad.training.objectives.trades import TRADES, divergence

N = 12
X = torch.rand(N, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 4


def net(scale: float = 1.0) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 * scale)
        model[1].running_mean.uniform_(-0.2, 0.2, generator=generator)
        model[1].running_var.uniform_(0.5, 2.0, generator=generator)
    return model.train()


def streams():
    return seeded(0, "trades", range(N))


def released(model: nn.Module, x: Tensor, start: Tensor, threat: Threat, beta: float, step_size: float) -> Tensor:
    """The published formulation: probabilities of x anew in every term, KL with p not in logarithms."""
    model.eval()
    x_adv = start
    for _ in range(10):
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            kl = F.kl_div(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1), reduction="sum")
        (g,) = torch.autograd.grad(kl, x_adv)
        if isinstance(threat, Linf):
            x_adv = x_adv.detach() + step_size * g.sign()
            x_adv = torch.min(torch.max(x_adv, x - threat.eps), x + threat.eps).clamp(0.0, 1.0)
        else:
            x_adv = x_adv.detach() + step_size * g / g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
            d = (x_adv - x).renorm(2, 0, threat.size)
            x_adv = x + d
    model.train()
    natural = F.cross_entropy(model(x), Y)
    robust = F.kl_div(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1), reduction="batchmean")
    return natural + beta * robust


@pytest.mark.parametrize("threat", [Linf(eps=0.031), Linf(eps=0.2), L2(eps=0.3)], ids=str)
@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_it_is_the_released_formulation(threat: Threat, beta: float):
    """Loss and weight gradient to 1e-6. Under L2 the images stay off the box, where the projections agree."""
    x = 0.4 + 0.2 * X if isinstance(threat, L2) else X
    ours, theirs = net(), net()
    loss = TRADES(threat=threat, beta=beta)(ours, x, Y, generator=streams())
    start = x + 0.001 * streams().normal(2, 6, 6, dtype=torch.float64)
    step_size = 0.007 / 0.031 * threat.size if isinstance(threat, Linf) else 2 * threat.size / 10
    expected = released(theirs, x, start, threat, beta, step_size)
    loss.total.backward()
    expected.backward()
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-6 * b.grad.norm() + 1e-12


def test_the_step_is_that_of_the_paper_at_its_eps():
    """Two iterates of one step from one start differ by the default step: 0.007 at eps = 0.031 and 10 steps."""
    threat = Linf(eps=0.031)
    x = 0.4 + 0.2 * X
    start = x + 0.001 * streams().normal(2, 6, 6, dtype=torch.float64)
    moved = TRADES(threat=threat, steps=1, step_size=0.007).perturbed(net(), x, Y, generator=streams()) - start
    assert moved.abs().max().item() == pytest.approx(0.007, rel=1e-6)
    explicit = TRADES(threat=threat, steps=10, step_size=0.007).perturbed(net(), x, Y, generator=streams())
    assert torch.allclose(TRADES(threat=threat).perturbed(net(), x, Y, generator=streams()), explicit, atol=1e-12)


@pytest.mark.parametrize("threat", [Linf(eps=0.0), Linf(eps=0.1), L2(eps=0.5), L0(pixels=3)], ids=str)
def test_the_images_stay_in_the_threat_and_the_divergence_grows(threat: Threat):
    model = net().eval()
    objective = TRADES(threat=threat)
    x_adv = objective.perturbed(model, X, Y, generator=streams())
    assert threat.contains(x_adv, X).all()
    log_p = model(X).log_softmax(1)
    kl = divergence(log_p, model(x_adv).log_softmax(1))
    random = divergence(log_p, model(threat.sample(X, streams())).log_softmax(1))
    if threat.size:
        assert kl.mean() > 2 * random.mean()
    else:
        assert kl.max() <= 1e-12
    got = objective(model, X, Y, generator=streams())
    assert got.parts["divergence"].item() == pytest.approx(kl.mean().item(), rel=1e-9)


def test_the_images_are_those_of_a_linear_model_in_closed_form():
    """Two classes, logits (0, ⟨w, x⟩): KL grows with |⟨w, d⟩|, so that each x' ends in a corner of the ball."""
    w = torch.randn(72, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(w), 0.1 * w]))
    x = 0.4 + 0.2 * X
    x_adv = TRADES(threat=Linf(eps=0.1)).perturbed(model, x, Y % 2, generator=streams())
    gain = ((x_adv - x).flatten(1) @ w).abs()
    assert torch.allclose(gain, (0.1 * w.abs().sum()).expand(N))


def gap_net(gap: float, dtype: torch.dtype) -> nn.Sequential:
    """Logits (gap · x̄, 0, 0) with x̄ the image's mean: the other classes' probabilities underflow in float32."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3, bias=False)).to(dtype)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[0] = gap / 72
    return model


def test_a_logit_gap_of_110_gives_no_nan():
    x, y = torch.ones(4, 2, 6, 6), torch.zeros(4, dtype=torch.int64)
    generator = seeded(0, "gap", range(4))
    model = gap_net(110.0, torch.float32)
    assert model(x).softmax(1)[:, 1].max() == 0  # so the trap is there
    loss = TRADES(threat=Linf(eps=0.1))(model, x, y, generator=generator)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert torch.isfinite(model[1].weight.grad).all()
    wide = gap_net(110.0, torch.float64)
    expected = TRADES(threat=Linf(eps=0.1))(wide, x.double(), y, generator=seeded(0, "gap", range(4)))
    assert loss.total.item() == pytest.approx(expected.total.item(), abs=1e-6)


def test_the_formulation_in_probabilities_has_that_nan():
    """The control of the test above: why the KL is computed from two logarithms."""
    logits = torch.tensor([[110.0, 0.0, 0.0]], requires_grad=True)
    F.kl_div(torch.zeros(1, 3).log_softmax(1), logits.softmax(1), reduction="sum").backward()
    assert not torch.isfinite(logits.grad).all()
    ours = torch.tensor([[110.0, 0.0, 0.0]], requires_grad=True)
    divergence(ours.log_softmax(1), torch.zeros(1, 3).log_softmax(1)).sum().backward()
    assert torch.isfinite(ours.grad).all()


def test_the_divergence_is_kl():
    p = torch.randn(5, 4, dtype=torch.float64).log_softmax(1)
    q = torch.randn(5, 4, dtype=torch.float64).log_softmax(1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    )
    assert torch.allclose(divergence(p, q), expected)


def test_without_weight_on_the_divergence_it_is_natural():
    got = TRADES(threat=Linf(eps=0.1), beta=0)(net(), X, Y, generator=streams())
    assert torch.equal(got.total, Natural()(net(), X, Y, generator=streams()).total)


@pytest.mark.parametrize(
    "wrong", [{"beta": -1.0}, {"beta": float("nan")}, {"steps": 0}, {"step_size": 0.0}, {"start": 0.0}], ids=str
)
def test_bad_numbers_are_refused(wrong: dict[str, float]):
    with pytest.raises(BadInput, match=next(iter(wrong))) as caught:
        TRADES(threat=Linf(eps=0.1), **wrong)
    assert "\n" not in str(caught.value)


def test_images_outside_the_box_are_refused():
    with pytest.raises(BadInput, match="Normalise inside"):
        TRADES(threat=Linf(eps=0.1))(net(), X + 1, Y, generator=streams())
