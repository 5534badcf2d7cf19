"""The parts of a classifier are the classifier, with nothing between the image and the layers that scales it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from verigrad.catalog import build, complete
from verigrad.certificates.folding import exact, fold
from verigrad.certificates.interval import Box, propagate
from verigrad.certificates.parts import Conv, Linear, Monotone, Parts, Scale
from verigrad.core.errors import BadInput

NETWORKS = (
    "small-conv:channels=4",
    "normalised:module=small-conv(channels=4),mean=(0.3),std=(0.25)",
    "normalised:module=resnet10(channels=4),mean=(0.3),std=(0.25)",
    "scaled-logits:module=small-conv(channels=4),scale=100",
    "resnet18:channels=4,antisymmetric=true",
    "resnet50:channels=4",
    "resnet8:channels=4,h=0.1",
    "preact-resnet18:channels=4",
    "wide-resnet:depth=10,widen=1",
    "resnext34:channels=4",
    "polynet:channels=4,norm=none",
    "fractalnet:channels=4",
)


def lively(spec: str) -> nn.Module:
    """A network with running averages as after training."""
    torch.manual_seed(0)
    model = build("model", complete(spec, in_channels=1, classes=5)).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, -1, 1)
                nn.init.uniform_(part.bias, -1, 1)
    return model


def values(parts: Parts, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return propagate(parts, Box(x, x), ())[len(parts) - 1].low


@pytest.mark.parametrize("spec", NETWORKS)
def test_the_parts_give_the_logits(spec: str) -> None:
    model = lively(spec)
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    expected = exact(model)(x)
    assert (values(fold(model, x[:1]), x) - expected).norm() <= 1e-10 * expected.norm()


def test_batch_norm_and_normalisation_leave_no_scale() -> None:
    model = lively("normalised:module=resnet10(channels=4),mean=(0.3),std=(0.25)")
    scales = [part for part in fold(model, torch.rand(1, 1, 8, 8)) if isinstance(part, Scale)]
    assert all((part.factor == 1).all() for part in scales)
    assert [part.shift.flatten().tolist() for part in scales] == [[pytest.approx(-0.3)]]


def test_folding_is_exact_under_zero_padding() -> None:
    """The border sees zeros of the normalised image, which are means of the image as it was."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 3, padding=1, groups=2).double()
    mean, std = torch.tensor([[[[0.4]], [[0.2]]]]).double(), torch.tensor([[[[0.5]], [[0.1]]]]).double()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv((x - mean) / std).flatten(1)

    x = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    parts = fold(Net(), x[:1])
    assert [type(part).__name__ for part in parts] == ["Source", "Scale", "Conv", "Monotone"]
    kernel = next(part for part in parts if isinstance(part, Conv)).weight
    assert torch.allclose(kernel, conv.weight / std.reshape(2, 1, 1, 1))
    assert torch.allclose(values(parts, x), F.conv2d((x - mean) / std, conv.weight, conv.bias, 1, 1, 1, 2).flatten(1))


def test_the_model_is_not_touched() -> None:
    model = lively("resnet10:channels=4").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model, torch.rand(1, 1, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_changes_in_place_are_undone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    assert torch.allclose(values(fold(model, x[:1]), x), exact(model)(x))


def test_copies_and_choices_of_entries_have_their_norms() -> None:
    class Net(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x.repeat(1, 3, 1, 1)[:, :5, ::2], 2).flatten(1)

    parts = fold(Net(), torch.rand(1, 2, 8, 4))
    norms = [part.l2 for part in parts if isinstance(part, Monotone)]
    assert norms == pytest.approx([3**0.5, 1, 0.5, 1])


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.GELU(), r"GELU \(1\)"),
        (nn.LeakyReLU(-0.5), r"LeakyReLU \(1\)"),
        (nn.LeakyReLU(2.0), r"LeakyReLU \(1\)"),
        (nn.ELU(alpha=3.0), r"ELU \(1\)"),
        (nn.Softmax(1), r"Softmax \(1\)"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "Conv2d"),
        (nn.BatchNorm2d(1, track_running_stats=False), "BatchNorm2d"),
    ],
)
def test_what_it_does_not_know_it_refuses_by_name(layer: nn.Module, named: str) -> None:
    model = nn.Sequential(nn.ReLU(), layer, nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(BadInput, match=f"No bound is known for {named}"):
        fold(model, torch.rand(1, 1, 4, 4))


class Mixing(nn.Module):
    """Its logits depend on batch-mates."""

    def forward(self, x):
        return x.flatten(1) - x.flatten(1).mean(0, keepdim=True)


class Doubling(nn.Module):
    def forward(self, x):
        return x.flatten(1) * x.flatten(1)


class Deciding(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize("model", [Mixing(), Doubling(), Deciding()], ids=lambda model: type(model).__name__)
def test_other_code_is_refused_in_one_line(model: nn.Module) -> None:
    with pytest.raises(BadInput) as fault:
        fold(model, torch.rand(1, 1, 2, 2))
    assert "\n" not in str(fault.value)


def test_a_linear_layer_after_a_scale_takes_its_factor() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model[1].running_var.copy_(torch.tensor([1.0, 4.0, 9.0, 16.0]))
    last = fold(model, torch.rand(1, 1, 2, 2))[-1]
    assert isinstance(last, Linear)
    assert torch.allclose(last.weight, model[2].weight.double() / torch.tensor([1.0, 2, 3, 4]).double(), rtol=1e-4)


class InPlace(nn.Module):
    """x += f(x); with `seen`, what it was before is asked for again, and is no longer that."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.first, self.second, self.seen = nn.Linear(4, 4), nn.Linear(4, 4), seen

    def forward(self, x):
        y = self.first(x.flatten(1))
        z = y
        y += self.second(x.flatten(1))
        return y + z if self.seen else y


def test_sums_in_place_are_read_where_nobody_sees_the_difference() -> None:
    x = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    model = InPlace(False)
    assert torch.allclose(values(fold(model, x[:1]), x), exact(model)(x))
    with pytest.raises(BadInput, match="do not give its logits"):
        fold(InPlace(True), x[:1])


def test_a_hook_makes_a_layer_unknown() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].register_forward_hook(lambda module, given, out: out + given[0][:, :2])
    with pytest.raises(BadInput, match="Linear"):
        fold(model, torch.rand(1, 1, 2, 2))
