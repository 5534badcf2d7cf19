"""The moving average against its sum written out, and what of a network it does not touch."""

from dataclasses import replace

import pytest
import torch
from short_training import SHORT, Noisy, some
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.training.mean_weights import MeanWeights
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train


def test_the_mean_is_the_weighted_sum_of_all_weights_so_far():
    module = nn.Linear(3, 2, dtype=torch.float64)
    decay = 0.4
    mean = MeanWeights(module, decay)
    seen = [module.weight.detach().clone()]
    for _ in range(8):
        with torch.no_grad():
            module.weight.normal_()
        seen.append(module.weight.detach().clone())
        mean.follow()
    kept = [min(decay, (1 + t) / (10 + t)) for t in range(1, 9)]
    assert kept[0] == 2 / 11
    assert kept[-1] == 0.4
    shares = [1.0] + [1 - d for d in kept]
    expected = sum(
        share * weight * torch.tensor(kept[i:], dtype=torch.float64).prod()
        for i, (share, weight) in enumerate(zip(shares, seen, strict=True))
    )
    assert (mean.means["weight"] - expected).norm() < 1e-12


def test_the_mean_is_lent_and_given_back_with_the_live_buffers():
    module = nn.BatchNorm2d(2)
    mean = MeanWeights(module, 0.5)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.running_mean.fill_(7.0)
    with mean.applied():
        assert module.weight.tolist() == [1.0, 1.0]
        assert module.running_mean.tolist() == [7.0, 7.0]
    assert module.weight.tolist() == [3.0, 3.0]


def test_the_mean_is_what_is_validated_and_kept():
    """The mean is another network than the trained one, and the one that is told."""
    recipe = replace(SHORT, validation=20, mean_weights=0.99)
    models = [initialised(Noisy, 5) for _ in range(2)]
    told = train(models[0], *some(), Natural(), recipe)
    plain = train(models[1], *some(), Natural(), replace(recipe, mean_weights=None))
    assert [epoch.parts for epoch in told.history] == [epoch.parts for epoch in plain.history]  # trained alike
    assert not torch.equal(models[0].body[3].weight, models[1].body[3].weight)
    assert torch.equal(models[0].body[0].running_mean, models[1].body[0].running_mean)
    x, y = some()
    with torch.no_grad():
        right = models[0](x[told.validation_ids]).argmax(1) == y[told.validation_ids]
    assert float(right.float().mean()) == pytest.approx(told.history[-1].validation)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decays_are_told(decay):
    with pytest.raises(BadInput, match="'mean_weights' of a Recipe must be in"):
        Recipe(mean_weights=decay)
