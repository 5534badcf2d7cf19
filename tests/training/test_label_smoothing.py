"""Smoothed labels in every objective that has them: the loss at the images that it was shown, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.training.objectives.base import Objective

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
SPECS = (
    "natural:smoothing=0.3",
    "gaussian-noise:sigma=0.25,smoothing=0.3",
    "adversarial:threat=linf(eps=0.1),smoothing=0.3",
    "fgsm-adversarial:threat=linf(eps=0.1),smoothing=0.3",
    "trades:threat=linf(eps=0.1),beta=0,smoothing=0.3",
)


class Seen(nn.Module):
    """Keeps the logits of its passes in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, dtype=torch.float64))
        with torch.no_grad():
            self.body[1].weight.copy_(torch.arange(48.0).reshape(3, 16).sin())
            self.body[1].bias.zero_()
        self.logits: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        if self.training:
            self.logits.append(logits.detach())
        return logits


def told(objective: Objective) -> tuple[float, Tensor]:
    """The loss, and the logits (6, 3) that the cross-entropy was of: the first in training mode."""
    model = Seen().train()
    total = objective(model, X, Y, generator=seeded(0, "smoothing", range(6))).total
    return total.item(), model.logits[0]


@pytest.mark.parametrize("spec", SPECS)
def test_a_share_of_each_label_goes_to_all_classes(spec: str):
    loss, logits = told(catalog.build("objective", spec))
    labels = 0.7 * nn.functional.one_hot(Y, 3).double() + 0.3 / 3
    expected = -(labels * logits.log_softmax(1)).sum(1).mean().item()
    assert loss == pytest.approx(expected, rel=1e-9)
    # The perturbed images do not depend on it, and the loss does.
    sharp, same = told(catalog.build("objective", spec.replace("0.3", "0.0")))
    assert torch.equal(same, logits)
    assert abs(loss - sharp) > 1e-3


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("share", ["1.0", "-0.1"])
def test_what_is_no_share_is_refused(spec: str, share: str):
    with pytest.raises(BadInput, match=r"The 'smoothing' of \w+ must be in \[0, 1\)"):
        catalog.build("objective", spec.replace("smoothing=0.3", f"smoothing={share}"))
