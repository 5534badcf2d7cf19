"""What is no classifier of the given images is refused; a classifier is left as it was found."""

import pytest
import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.inspecting import check_classifier, describe_model
from verigrad.models.masks import ScaledLogits
from verigrad.models.networks.neural_ode import NeuralODEMNIST
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.networks.sonet import SONet

X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(7)


def normed() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 10))


def leave(x):
    raise SystemExit(0)


def leave_under_grad(x):
    return leave(x) if torch.is_grad_enabled() else x.flatten(1)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_classifiers_pass():
    check_classifier(SmallConvNet().eval(), X, Y)
    check_classifier(SmallConvNet(), X, Y)
    check_classifier(SONet(4, (1, 1, 1, 1), in_channels=1), X, Y)
    check_classifier(nn.Sequential(SmallConvNet(), nn.LogSoftmax(1)), X, Y)


@pytest.mark.parametrize("labels", [Y, torch.zeros(7, dtype=torch.int64)])
def test_one_logit_is_no_classifier(labels):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    with pytest.raises(BadInput, match=r"K at least 2, .* Got \(7, 1\). .*torch.cat"):
        check_classifier(model, X, labels)
    check_classifier(nn.Sequential(model, Function(lambda z: torch.cat([-z, z], 1))), X, torch.arange(7) % 2)


def test_batch_norm_in_training_mode_is_refused_and_dropout_is_not():
    model = normed()
    with pytest.raises(BadInput, match=r"The batch norm '0' .* Call .eval\(\)"):
        check_classifier(model, X, Y)
    model.eval()
    model[1].train()
    running = model[0].running_mean.clone()
    check_classifier(model, X, Y)
    assert model[1].training
    assert torch.equal(running, model[0].running_mean)
    assert all(weight.requires_grad for weight in model.parameters())


def nan_weight() -> nn.Module:
    model = SmallConvNet()
    nn.init.constant_(model.layers[0].bias, torch.inf)
    return model


def nan_buffer() -> nn.Module:
    model = normed().eval()
    model[0].running_mean.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(SmallConvNet(), nn.Softmax(1)), "gives probabilities"),
        (SmallConvNet(classes=5), r"has 5 classes, but the labels go up to 6. Labels must be in \[0, 5\)"),
        (SmallConvNet(3), r"does not take images of shape \(7, 1, 8, 8\)"),
        (Function(lambda x: (x.flatten(1), x)), "to one tensor of logits: AttributeError"),
        (
            Function(lambda x: x.flatten(1).mul(9).long()),
            "must be floating point. Got int64. Return what it has before",
        ),
        (Function(lambda x: x.flatten(1) * 1j), "must be floating point. Got complex64"),
        (Function(leave), "SystemExit: 0"),
        (Function(leave_under_grad), "fails where it is differentiated by its images: SystemExit: 0"),
        (Function(lambda x: x), r"logits of shape \(7, K\). Got \(7, 1, 8, 8\)"),
        (Function(lambda x: x.flatten(1)[:3]), r"logits of shape \(7, K\). Got \(3, 64\)"),
        (Function(lambda x: x.flatten(1).log() - x.flatten(1).log()[3:4] / 0), "logits of the model are not finite"),
        (nan_weight(), "The weight 'layers.0.bias' of the model holds NaN or infinity"),
        (nan_buffer(), "The buffer '0.running_mean' of the model holds NaN"),
    ],
)
def test_what_is_no_classifier_is_told(model: nn.Module, message: str):
    with pytest.raises(BadInput, match=message) as told:
        check_classifier(model, X, Y)
    assert "\n" not in str(told.value)


def test_a_description_names_the_solvers():
    told = describe_model(ScaledLogits(SONet(4, (1, 1, 1, 1)), 2.0))
    assert told["class"] == "verigrad.models.masks.ScaledLogits"
    assert told["parameters"] == sum(weight.numel() for weight in SONet(4, (1, 1, 1, 1)).parameters())
    assert [entry["block"] for entry in told["solvers"]][:2] == ["module.stem", "module.stages.0.0"]
    assert told["solvers"][0]["method"] == "dopri5"
    assert "BatchCoupled(rtol=0.1" in told["solvers"][0]["control"]
    assert told["solvers"][0]["gradient"] == "Direct(grid='all')"
    assert (told["solvers"][0]["t0"], told["solvers"][0]["t1"]) == (0.0, 1.0)
    assert describe_model(SmallConvNet())["solvers"] == []


def test_a_longer_solve_has_another_description():
    long, short = (describe_model(NeuralODEMNIST(4, t1=t1)) for t1 in (100, 1))
    assert long != short
    assert long["solvers"][0]["t1"] == 100.0
