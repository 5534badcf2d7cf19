"""A twin of a model that is written on torchdiffeq: the very weights, other solves, and the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from foreigners import adjoint_sonet, new_sonet, old_sonet, timed_net
from oracles import torchdiffeq_0_2_5
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.carrying import Carrying, foreign_solves
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.twin import twin
from verigrad.solvers import (
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    TORCHDIFFEQ_0_2_5,
    Adjoint,
    BatchCoupled,
    Direct,
    Fixed,
    PerSample,
    carried,
)

# torchdiffeq 0.0.1 reads scalars from its graph; torch says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def gradient(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their squares, taken when every context is closed."""
    at = x.clone().requires_grad_(True)
    logits = model(at)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), at)[0]


@pytest.mark.parametrize("make", [old_sonet, new_sonet, adjoint_sonet])
def test_a_twin_in_nothing_is_the_model_up_to_rounding(make):
    model = make()
    (own, pulled), (logits, carried_pull) = gradient(model, X), gradient(twin(model), X)
    assert apart(logits, own) < 1e-3
    if make is not adjoint_sonet:  # whose solve back is weighed otherwise, which shows at this tolerance
        assert apart(carried_pull, pulled) < 5e-2


def test_the_weights_are_the_models_and_the_model_stays_torchdiffeqs():
    model = new_sonet()
    code = torchdiffeq_0_2_5().odeint.__code__
    frozen = twin(model, gradient=Direct(grid="frozen"))
    own, pulled = gradient(model, X)
    logits, frozen_pull = gradient(frozen, X)
    assert apart(logits, own) < 1e-3
    assert apart(frozen_pull, pulled) > 5e-2
    assert {id(weight) for weight in frozen.parameters()} == {id(weight) for weight in model.parameters()}
    assert torchdiffeq_0_2_5().odeint.__code__ is code
    again, pulled_again = gradient(model, X)
    assert torch.equal(again, own)
    assert torch.equal(pulled_again, pulled)
    assert apart(gradient(copy.deepcopy(frozen).double(), X.double())[1], frozen_pull.double()) < 5e-2


def test_each_choice_reaches_the_solves():
    model = new_sonet()
    library = torchdiffeq_0_2_5()
    fixed = twin(model, method=RK4_38, control=Fixed(steps=4), gradient=Direct(grid="frozen"))
    with torch.no_grad(), carried(library, control=Fixed(steps=9), gradient=Direct(grid="all")) as solves:
        logits = fixed(X)
    assert {(one.method, one.control, one.gradient) for one in solves} == {
        (RK4_38.name, Fixed(steps=4), Direct(grid="frozen"))
    }
    rk4 = new_sonet()
    rk4.integrate = lambda field, y0, t, **_: library.odeint(field, y0, t, method="rk4", options={"step_size": 0.25})
    with torch.no_grad():
        assert apart(logits, rk4(X)) < 1e-3


def test_a_twin_of_a_twin_keeps_what_is_not_asked_anew():
    model = new_sonet()
    first = twin(model, control=Fixed(steps=2), gradient=Direct(grid="all"))
    second = twin(first, control=Fixed(steps=3))
    assert isinstance(second, Carrying)
    assert second.module is model
    assert {(one.control, one.gradient) for one in foreign_solves(second, X)} == {(Fixed(steps=3), Direct(grid="all"))}
    assert {one.control for one in foreign_solves(first, X)} == {Fixed(steps=2)}


def test_each_sample_has_its_own_steps_under_a_control_made_of_the_calls_own():
    model = old_sonet()
    apart_ = twin(model, control=lambda own: PerSample(**vars(own)))
    with torch.no_grad():
        alone = torch.cat([model(x[None]) for x in X])
        assert apart(apart_(X), alone) < 1e-3
        assert apart(model(X), alone) > 1e-2


def test_the_calls_of_a_model_are_found_by_running_it():
    old, new, adjoint = (foreign_solves(make(), X[:1]) for make in (old_sonet, new_sonet, adjoint_sonet))
    assert [len(one) for one in (old, new, adjoint)] == [6, 6, 6]
    assert {one.control for one in old} == {BatchCoupled(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_0_1)}
    assert {one.control for one in new} == {BatchCoupled(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_2_5)}
    assert {one.gradient for one in old} == {Direct(grid="all")}
    assert {one.gradient for one in new} == {Direct(grid="first")}
    assert {(one.call, one.method, one.gradient) for one in adjoint} == {
        ("odeint_adjoint", "dopri5", Adjoint(rtol=0.1, atol=0.1))
    }
    assert foreign_solves(SmallConvNet(in_channels=1), X) == []


def test_a_model_that_calls_no_torchdiffeq_has_no_twin_although_it_is_loaded():
    torchdiffeq_0_2_5()
    other = twin(SmallConvNet(in_channels=1), gradient=Direct(grid="frozen"))
    with pytest.raises(BadInput, match="SmallConvNet has none"):
        other(X)


def test_what_cannot_be_carried_is_told():
    with pytest.raises(BadInput, match="dopri8"):
        foreign_solves(timed_net(method="dopri8"), X)


class Burst(nn.Module):
    """The first of three samples runs to infinity before t = 1: y' = y², y(0) = 2."""

    def forward(self, x: Tensor) -> Tensor:
        start = x.mean((1, 2, 3))[:, None]
        t = torch.tensor([0.0, 1.0])
        return torchdiffeq_0_2_5().odeint(lambda t, y: y * y, start, t, rtol=1e-3, atol=1e-3)[1]


def test_a_sample_that_a_twin_cannot_solve_is_nan_and_the_others_are_not():
    x = torch.tensor([2.0, 0.25, 0.5]).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    with torch.no_grad():
        logits = twin(Burst(), control=lambda own: PerSample(**vars(own)))(x).flatten()
    assert torch.isnan(logits).tolist() == [True, False, False]
    assert logits[1:].tolist() == pytest.approx([1 / 3, 1.0], rel=1e-2)


class Contracting(nn.Module):
    """h' = −D h + tanh(W h), five fast directions and three slow ones, in float64, under the adjoint."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        rates = torch.tensor([40.0] * 5 + [0.5] * 3, dtype=torch.float64)
        self.rates, self.w = nn.Parameter(rates), nn.Parameter(torch.randn(8, 8, generator=draw).double())
        self.stem, self.head = (nn.Parameter(torch.randn(n, 8, generator=draw).double()) for n in (64, 10))
        self.integrate = torchdiffeq_0_2_5().odeint_adjoint

    class Field(nn.Module):
        def __init__(self, net: Contracting) -> None:
            super().__init__()
            self.rates, self.w = net.rates, net.w

        def forward(self, t: Tensor, h: Tensor) -> Tensor:
            return torch.tanh(h @ self.w) - self.rates * h

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        options = {"max_num_steps": 2000}
        start = x.flatten(1) @ self.stem / 8
        return (
            self.integrate(self.Field(self), start, t, rtol=1e-6, atol=1e-6, method="dopri5", options=options)[1]
            @ self.head.t()
        )


def test_backpropagation_along_the_steps_is_right_where_an_adjoint_is_not():
    """Backwards in time the fast directions grow by e^40, so the adjoint comes by states that never were."""
    model, x = Contracting(), X.double()
    scale = torch.arange(1.0, 11.0, dtype=torch.float64)

    def pull(one: nn.Module) -> Tensor:
        at = x.clone().requires_grad_(True)
        return torch.autograd.grad((one(at) * scale).sum(), at)[0].flatten()

    def difference(v: Tensor, h: float = 1e-3) -> Tensor:
        with torch.no_grad():
            return ((model(x + h * v) - model(x - h * v)) * scale).sum() / (2 * h)

    directions = torch.randn(12, *x.shape, generator=torch.Generator().manual_seed(1)).double()
    true = torch.stack([difference(v) for v in directions])
    direct = directions.flatten(1) @ pull(twin(model, gradient=Direct(grid="frozen")))
    own = directions.flatten(1) @ pull(model)
    assert apart(direct, true) < 1e-2
    assert not apart(own, true) < 0.1  # or not finite at all
