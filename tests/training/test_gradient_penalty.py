"""The gradient penalty against closed forms, double precision and double backprop written out anew."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.training.objectives.base import Loss
from verigrad.training.objectives.gradient_penalty import WAYS, GradientPenalty

N = 16
SHAPE = (2, 6, 6)
PIXELS = 72
X = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 3


def net(activation: type[nn.Module] = nn.GELU, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), activation(), nn.Conv2d(8, 8, 3), activation(), nn.Flatten(), nn.Linear(32, 3)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if weight.dim() > 1 else 0.1))
    return model.to(dtype).train()


def run(model: nn.Module, x: Tensor = X, **fields: Any) -> Loss:
    return GradientPenalty(**fields)(model, x, Y, generator=seeded(0, "penalty", range(N)))


def exact_norms(model: nn.Module, norm: str) -> Tensor:
    """(B,) one image at a time."""
    found = []
    for x, y in zip(X, Y, strict=True):
        at = x[None].clone().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(at), y[None]), at)
        found.append(g.norm() if norm == "l2" else g.abs().sum() / math.sqrt(PIXELS))
    return torch.stack(found)


def weight_gradient(model: nn.Module, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])


def penalty_gradient(model: nn.Module, **fields: Any) -> Tensor:
    """Of the penalty alone: what the total's has beyond the cross-entropy's."""
    return weight_gradient(model, run(model, **fields).total) - weight_gradient(model, F.cross_entropy(model(X), Y))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_value_is_that_of_the_equations(norm: str, squared: bool, by: str):
    """ℓ + λ/2 n² or ℓ + λ n, with ‖g‖₁/√N under l1, to 1e-3 at h = 1e-3 in double precision."""
    model = net()
    loss = run(model, norm=norm, squared=squared, by=by, strength=0.7, h=1e-3)
    n = exact_norms(model, norm)
    penalty = 0.35 * n.square().mean() if squared else 0.7 * n.mean()
    rel = 1e-10 if by == "double-backprop" else 1e-3
    assert loss.parts["gradient_norm"].item() == pytest.approx(n.mean().item(), rel=rel)
    assert loss.parts["penalty"].item() == pytest.approx(penalty.item(), rel=rel)
    natural = F.cross_entropy(model(X), Y)
    assert loss.parts["cross_entropy"].item() == pytest.approx(natural.item())
    assert loss.total.item() == pytest.approx((natural + loss.parts["penalty"]).item())


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_error_of_the_finite_difference_falls_as_h(norm: str):
    model = net()
    exact = run(model, norm=norm, by="double-backprop").parts["gradient_norm"]
    errors = [abs(run(model, norm=norm, h=h).parts["gradient_norm"] - exact).item() for h in (1e-2, 1e-3, 1e-4)]
    slopes = [math.log10(errors[0] / errors[1]), math.log10(errors[1] / errors[2])]
    assert all(0.9 < slope < 1.1 for slope in slopes), slopes


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_weight_gradient_is_that_of_double_backprop_on_a_smooth_network(norm: str, squared: bool):
    model = net()
    exact = penalty_gradient(model, norm=norm, squared=squared, by="double-backprop")
    ours = penalty_gradient(model, norm=norm, squared=squared, h=1e-3)
    assert cosine(exact, ours) > 0.999
    assert ours.norm().item() == pytest.approx(exact.norm().item(), rel=0.02)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_direction_is_held_constant(norm: str):
    """Algorithm 1 with d computed elsewhere, one image at a time, gives the same weight gradient."""
    model, h = net(), 0.05
    terms = []
    for x, y in zip(X, Y, strict=True):
        at = x[None].clone().requires_grad_(True)
        (g,) = torch.autograd.grad(F.cross_entropy(model(at), y[None]), at)
        d = g / g.norm() if norm == "l2" else g.sign() / PIXELS**0.5
        low, high = (F.cross_entropy(model(one), y[None]) for one in (x[None], x[None] + h * d))
        terms.append(low + 0.5 * (high - low).square() / h**2)
    expected = weight_gradient(model, torch.stack(terms).mean())
    got = weight_gradient(model, run(model, norm=norm, h=h).total)
    assert (got - expected).norm() <= 1e-9 * expected.norm()


def test_double_backprop_is_not_of_the_mean_loss():
    """The gradient of the mean loss is 1/B of each sample's: squared it would shrink λ by B²."""
    model = net()
    whole = run(model, by="double-backprop").parts["penalty"]
    half = GradientPenalty(by="double-backprop")(model, X[:8], Y[:8], generator=seeded(0, "half", range(8)))
    rest = GradientPenalty(by="double-backprop")(model, X[8:], Y[8:], generator=seeded(0, "half", range(8)))
    assert whole.item() == pytest.approx((half.parts["penalty"] + rest.parts["penalty"]).item() / 2)


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_linear_model_in_closed_form(norm: str, by: str):
    """Logits (0, ⟨w, x⟩), label 0: g = p₁ w, so n = p₁ ‖w‖₂ or p₁ ‖w‖₁ / √N."""
    w = torch.randn(PIXELS, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 4
    model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(w), w]))
    p = torch.sigmoid(X.flatten(1) @ w)
    n = p * (w.norm() if norm == "l2" else w.abs().sum() / math.sqrt(PIXELS))
    objective = GradientPenalty(norm=norm, by=by, h=1e-4)
    got = objective(model, X, torch.zeros_like(Y), generator=seeded(0, "linear", range(N)))
    assert got.parts["gradient_norm"].item() == pytest.approx(n.mean().item(), rel=1e-3)
    assert got.parts["penalty"].item() == pytest.approx(n.square().mean().item() / 2, rel=1e-3)


def test_finite_differences_leave_double_backprop_on_relu_networks():
    """A finding of the method, not a fault: kinks within h give the weight gradient what no derivative at x has.

    The value agrees at h = 1e-3; the weight gradient is told apart from that of the smooth network.
    """
    model = net(nn.ReLU)
    exact, ours = (run(model, by=by, h=1e-3).parts["penalty"] for by in ("double-backprop", "finite-differences"))
    assert ours.item() == pytest.approx(exact.item(), rel=0.05)
    far = cosine(penalty_gradient(model, by="double-backprop"), penalty_gradient(model, h=0.05))
    near = cosine(penalty_gradient(net(), by="double-backprop"), penalty_gradient(net(), h=0.05))
    assert far < near


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_shared_backward_is_the_estimator_that_its_docstring_states(norm: str, squared: bool):
    """∇ of mean ℓ(x) + weights c_i · ℓ(x + h·d), c = λ n / h or λ / h, all computed apart."""
    model, h, strength = net(), 0.1, 0.7
    at = X.clone().requires_grad_(True)
    losses = F.cross_entropy(model(at), Y, reduction="none")
    (g,) = torch.autograd.grad(losses.sum(), at)
    size = g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    d = g / size if norm == "l2" else g.sign() / PIXELS**0.5
    moved = F.cross_entropy(model(X + h * d), Y, reduction="none")
    low = F.cross_entropy(model(X), Y, reduction="none")
    n = ((moved - low) / h).detach()
    assert (n > 0).all()
    weights = strength * n / h if squared else torch.full_like(n, strength / h)
    expected = weight_gradient(model, (low + weights * moved).mean())
    fields = {"norm": norm, "squared": squared, "strength": strength, "h": h}
    loss = run(model, by="shared-backward", **fields)
    assert torch.allclose(loss.total, run(model, by="finite-differences", **fields).total)
    got = weight_gradient(model, loss.total)
    assert (got - expected).norm() <= 1e-9 * expected.norm()


def test_the_shared_backward_scales_with_what_is_differentiated():
    """Its known gradient takes part in the chain rule: half the total has half the gradient."""
    model = net()
    whole = weight_gradient(model, run(model, by="shared-backward").total)
    half = weight_gradient(model, run(model, by="shared-backward").total / 2)
    assert torch.allclose(half, whole / 2)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_gradient_of_zero_is_penalised_by_nothing(norm: str, by: str, squared: bool):
    """d = 0 where g = 0; no division by zero, no NaN in the weights' gradient."""
    model = net()
    with torch.no_grad():
        model[5].weight.zero_()
    loss = run(model, norm=norm, by=by, squared=squared)
    assert loss.parts["penalty"] == 0
    assert torch.isfinite(weight_gradient(model, loss.total)).all()


@pytest.mark.parametrize("by", WAYS)
def test_strength_zero_has_the_gradient_of_natural_training(by: str):
    model = net()
    expected = weight_gradient(model, F.cross_entropy(model(X), Y))
    got = weight_gradient(model, run(model, by=by, strength=0.0).total)
    assert (got - expected).norm() <= 1e-10 * expected.norm()


def test_single_precision_holds_the_papers_h():
    """The value at h = 0.01 in float32 is that of float64; bfloat16 would drown it, hence `needs_float32`."""
    wide = run(net(), h=0.01).parts["penalty"]
    single = run(net(dtype=torch.float32), x=X.float(), h=0.01).parts["penalty"]
    assert single.item() == pytest.approx(wide.item(), rel=0.01)
    low = run(net(dtype=torch.bfloat16), x=X.bfloat16(), h=0.01).parts["penalty"]
    assert abs(low.item() - wide.item()) > 0.1 * wide.item()


def test_it_says_when_it_needs_single_precision():
    assert GradientPenalty().needs_float32
    assert GradientPenalty(by="shared-backward", h=0.05).needs_float32
    assert not GradientPenalty(h=0.1).needs_float32
    assert not GradientPenalty(by="double-backprop").needs_float32


@pytest.mark.parametrize(
    "wrong", [{"norm": "linf"}, {"strength": -1.0}, {"strength": math.inf}, {"h": 0.0}, {"by": "guess"}], ids=str
)
def test_bad_fields_are_refused(wrong: dict[str, Any]):
    with pytest.raises(BadInput, match=next(iter(wrong))) as caught:
        GradientPenalty(**wrong)
    assert "\n" not in str(caught.value)
