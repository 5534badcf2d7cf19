"""Each health check fires on the model made to have that fault, and on no sound one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from verigrad.auditing.health import CHECKS, depends_on_batch, examine
from verigrad.auditing.patient import Check, Patient
from verigrad.core.threat import Linf
from verigrad.data.images import Images
from verigrad.models.masks import QuantisedInput, ScaledLogits


class Wrapped(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class Leaky(Wrapped):
    """Each sample's logits are scaled by how dark the whole batch is."""

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) * (1 + 20 * (x.mean() - 0.3))


class Noisy(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.module(x + 0.05 * torch.randn_like(x))


class Shattered(Wrapped):
    """A fine sine on the input: the gradient turns many times within a step of a quarter of 0.12."""

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x + 0.02 * torch.sin(x * 4.5 * torch.pi / 0.03))


class Broken(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 0.3, torch.nan, self.module(x))


class _RoundedBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        top = gradient.abs().amax()
        return gradient if gradient.dtype == torch.float64 else (gradient / top).round() * top


class Coarse(Wrapped):
    """Its backward pass keeps one bit of the gradient in float32, and all of it in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return self.module(_RoundedBackward.apply(x))


def look(model: nn.Module, data: Images) -> dict[str, Check]:
    with torch.no_grad(), torch.random.fork_rng():
        rows = (model(data.x[:60]).argmax(1) == data.y[:60]).nonzero().squeeze(1)
    patient = Patient(model=model, x=data.x[:60], y=data.y[:60], rows=rows, threat=Linf(eps=0.12), seed=0)
    with torch.random.fork_rng():
        return {check.name: check for check in examine(patient)}


def fired(model: nn.Module, data: Images) -> set[str]:
    return {name for name, check in look(model.eval(), data).items() if check.fired}


def test_a_sound_model_fires_nothing(natural: nn.Module, hardened: nn.Module, digits: Images):
    assert fired(natural, digits) == set()
    assert fired(hardened, digits) == set()


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (lambda net: ScaledLogits(net, 1000.0), "saturated_loss"),
        (lambda net: QuantisedInput(net, 8), "zero_gradient"),
        (lambda net: QuantisedInput(net, 8), "finite_difference"),
        (Shattered, "coherence"),
        (Shattered, "finite_difference"),
        (Noisy, "randomness"),
        (Leaky, "batch_mates"),
        (Leaky, "cross_gradient"),
        (Broken, "non_finite"),
        (Coarse, "float64"),
    ],
)
def test_each_fault_is_seen(fault: type[Wrapped], check: str, natural: nn.Module, digits: Images):
    assert check in fired(fault(natural), digits)


def test_noise_is_not_taken_for_batch_mates(natural: nn.Module, digits: Images):
    assert "batch_mates" not in fired(Noisy(natural), digits)


def test_the_controller_of_a_sonet_turns_its_gradient(sonet: nn.Module, digits: Images):
    assert {"batch_mates", "cross_gradient", "grid_gradient"} <= fired(sonet, digits)
    assert depends_on_batch(sonet, [])


def test_the_model_is_left_as_it_was(natural: nn.Module, digits: Images):
    natural.train()
    before = {name: weight.clone() for name, weight in natural.state_dict().items()}
    look(natural, digits)
    assert natural.training
    assert all(weight.requires_grad and weight.grad is None for weight in natural.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in natural.state_dict().items())
    natural.eval()


def test_every_check_says_something_that_json_can_hold(natural: nn.Module, digits: Images):
    found = look(natural, digits)
    assert list(found) == [check.__name__ for check in CHECKS]
    for check in found.values():
        assert check.detail
        assert check.limit
        assert check.value is None or check.value == check.value
