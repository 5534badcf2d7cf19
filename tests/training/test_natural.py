"""Natural training in closed form, with and without smoothed labels."""

import math

import pytest
import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.training.objectives.natural import Natural

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def net() -> nn.Module:
    torch_net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in torch_net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return torch_net.train()


def streams():
    return seeded(0, "natural", range(len(X)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_natural_is_cross_entropy_with_the_smoothed_label(smoothing: float):
    """-Σ_k q_k log p_k with q written out: the right class has 1 - s + s/3, the others s/3."""
    model = net().eval()
    got = Natural(smoothing=smoothing)(model, X, Y, generator=streams())
    log_p = model(X).detach().double().log_softmax(1)
    q = torch.full_like(log_p, smoothing / 3)
    q[range(len(Y)), Y] = 1 - smoothing + smoothing / 3
    assert got.total.item() == pytest.approx(float(-(q * log_p).sum(1).mean()), rel=1e-5)
    assert float(got.parts["accuracy"]) == pytest.approx(float((log_p.argmax(1) == Y).double().mean()))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_bad_smoothing_is_refused(smoothing: float):
    with pytest.raises(BadInput, match="'smoothing'") as caught:
        Natural(smoothing=smoothing)
    assert "\n" not in str(caught.value)
