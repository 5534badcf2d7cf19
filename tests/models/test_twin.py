"""A twin has the same tensors, differs in what was asked and in nothing else, and leaves the model alone."""

import sys

import pytest
import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.masks import ScaledLogits
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.networks.sonet import SONet
from verigrad.models.ode_block import RELEASED
from verigrad.models.twin import ode_blocks, twin
from verigrad.solvers import RK4_38, TORCHDIFFEQ_0_0_1, BatchCoupled, Direct, Fixed, PerSample
from verigrad.solvers.torchdiffeqs import torchdiffeqs
from verigrad.training.trainer import initialised


@pytest.fixture
def model() -> nn.Module:
    return ScaledLogits(initialised(lambda: SONet(8, (1, 1, 1, 1), in_channels=1), 0), 2.0).eval()


X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def test_all_tensors_are_shared(model: nn.Module):
    other = twin(model, gradient=Direct(grid="frozen"))
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    assert list(ours) == list(theirs)
    assert all(ours[name] is theirs[name] for name in ours)
    assert all(a is b for a, b in zip(model.buffers(), other.buffers(), strict=True))
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
        assert torch.equal(model(X), other(X))


def test_only_what_is_asked_changes(model: nn.Module):
    frozen = twin(model, gradient=Direct(grid="frozen"))
    for block in ode_blocks(frozen):
        assert block.solver.gradient == Direct(grid="frozen")
        assert (block.solver.method, block.solver.control) == (RELEASED.method, RELEASED.control)
    fixed = twin(model, method=RK4_38, control=Fixed(steps=4))
    for block in ode_blocks(fixed):
        assert (block.solver.method, block.solver.control) == (RK4_38, Fixed(steps=4))
        assert block.solver.gradient == RELEASED.gradient
    assert all(block.solver == RELEASED for block in ode_blocks(model))
    assert len(ode_blocks(model)) == len(ode_blocks(fixed)) == 6
    assert not {id(part) for part in model.modules()} & {id(part) for part in frozen.modules()}


def test_a_frozen_twin_predicts_the_same_and_differentiates_otherwise(model: nn.Module):
    frozen = twin(model, gradient=Direct(grid="frozen"))
    gradients = []
    for one in (model, frozen):
        x = X.clone().requires_grad_()
        logits = one(x)
        gradients.append(torch.autograd.grad(logits.square().sum(), x)[0])
    with torch.no_grad():
        assert torch.equal(model(X), frozen(X))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) > 1e-3


def test_blocks_are_found_in_any_nesting(model: nn.Module):
    nested = nn.ModuleDict({"a": nn.ModuleList([model, nn.Identity()])})
    assert len(ode_blocks(twin(nested, gradient=Direct(grid="first")))) == 6


def test_a_block_used_twice_stays_one_block(model: nn.Module):
    twice = nn.Sequential(model, nn.Flatten())
    twice.add_module("again", model)
    other = twin(twice, gradient=Direct(grid="first"))
    assert other[0] is other[2]


def test_a_control_may_be_made_of_each_blocks_own(model: nn.Module):
    own = BatchCoupled(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_0_1)
    apart = twin(model, control=lambda control: PerSample(**vars(control)))
    assert all(block.solver.control == PerSample(**vars(own)) for block in ode_blocks(apart))
    assert all(block.solver.control == own for block in ode_blocks(model))


def test_a_model_without_ode_blocks_has_no_twin(monkeypatch: pytest.MonkeyPatch):
    for module in torchdiffeqs():  # another test of this process may have loaded it
        monkeypatch.delitem(sys.modules, module.__name__)
        monkeypatch.delitem(sys.modules, f"{module.__name__}._impl", raising=False)
    with pytest.raises(BadInput, match="SmallConvNet has none"):
        twin(SmallConvNet())
