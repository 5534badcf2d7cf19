"""Looking at a classifier without changing it."""

import pytest
import torch
from controls import Coupled, Dirty, Saturated
from torch import nn

from verigrad.core.classifier import batch_coupled, left_as_found, predict


def state(model: nn.Module):
    return (
        {name: module.training for name, module in model.named_modules()},
        {name: (weight.requires_grad, weight.grad) for name, weight in model.named_parameters()},
        {name: value.clone() for name, value in model.state_dict().items()},
        dict(model.named_buffers()),
    )


def same(before, after) -> bool:
    values = all(torch.equal(before[2][name], after[2][name]) for name in before[2])
    objects = all(before[3][name] is after[3][name] for name in before[3])
    return before[0] == after[0] and before[1] == after[1] and values and objects


def mixed_model() -> nn.Module:
    model = Dirty()
    model.train()
    model.body[1].eval()
    return model


def test_inside_it_is_in_eval_mode_and_frozen():
    model = mixed_model()
    with left_as_found(model) as seen:
        assert seen is model
        assert not any(module.training for module in model.modules())
        assert not any(weight.requires_grad for weight in model.parameters())


def test_everything_is_put_back():
    model = mixed_model()
    before = state(model)
    with left_as_found(model):
        model.train()
        model(torch.rand(5, 2, 3, 3))  # moves the running statistics in place
        model.body[1].running_mean = torch.ones(4)  # and replaces a buffer by another object
        model.head.weight.requires_grad_(True)
    assert same(before, state(model))


def test_everything_is_put_back_after_an_error():
    model = mixed_model()
    before = state(model)

    def fail():
        with left_as_found(model):
            model.body[1].running_var.fill_(torch.nan)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert same(before, state(model))


def test_the_comparison_above_notices_changes():
    model = mixed_model()
    before = state(model)
    for change in (
        lambda: model.body.train(not model.body.training),
        lambda: model.head.weight.requires_grad_(False),
        lambda: model.body[1].running_mean.add_(1),
    ):
        change()
        assert not same(before, state(model))


def test_predict():
    model = mixed_model()
    before = state(model)
    x = torch.rand(7, 2, 3, 3)
    logits = predict(model, x, batch=3)
    assert same(before, state(model))
    assert not logits.requires_grad
    model.eval()
    assert torch.allclose(logits, model(x), atol=1e-6)


def test_predict_keeps_the_batches_of_a_coupled_model():
    model = Coupled(nn.Sequential(nn.Flatten(), nn.Linear(18, 3)))
    x = torch.rand(4, 2, 3, 3)
    assert torch.equal(predict(model, x, batch=2), torch.cat([model(x[:2]), model(x[2:])]).detach())
    assert not torch.allclose(predict(model, x, batch=4), predict(model, x, batch=2))


def test_batch_coupled():
    inner = nn.Linear(2, 2)
    assert not batch_coupled(inner)
    assert not batch_coupled(lambda x: x)
    assert batch_coupled(Coupled(inner))
    assert batch_coupled(nn.Sequential(Saturated(Coupled(inner))))
    inner.batch_coupled = False
    assert not batch_coupled(inner)
