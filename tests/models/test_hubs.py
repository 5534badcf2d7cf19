"""Models of timm and torchvision, tried on stand-ins that answer as the packages do. Nothing is downloaded."""

from __future__ import annotations

import enum
import fnmatch
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.inspecting import weights_hash
from verigrad.models.loading import load_model
from verigrad.models.normalised import Normalised

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OTHER = (0.5, 0.5, 0.5)
X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Sequential):
    def __init__(self, classes: int = 7, channels: int = 3) -> None:
        super().__init__(nn.Conv2d(channels, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, classes))


def published(seed: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """timm 1.0: names are ARCHITECTURE.TAG, a bare one has the first tag's config, and errors are RuntimeErrors."""
    tags = {"resnet18.a1_in1k": MEAN, "resnet18.half": OTHER, "resnet18.features": OTHER}

    def create_model(name: str, pretrained: bool = False, num_classes: int = 7, in_chans: int = 3) -> nn.Module:
        full = name if "." in name else "resnet18.a1_in1k"
        if pretrained and full == "resnet18.half":
            raise OSError("We cannot connect.\nTry again")
        model = published(1) if pretrained else Net(num_classes, in_chans)
        std = STD if tags[full] is MEAN else OTHER
        model.pretrained_cfg = {"mean": tags[full], "std": std, "num_classes": 0 if "features" in full else 7}
        return model

    module = ModuleType("timm")
    module.create_model = create_model
    module.is_model = lambda name: name.partition(".")[0] in ("resnet18", "bare")
    module.list_models = lambda: ["resnet18", "bare"]
    module.list_pretrained = lambda pattern: fnmatch.filter(tags, pattern)
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """torchvision 0.28: an enum of weights for each classifier, with `transforms()` that know mean and std."""

    class Weights(enum.Enum):
        IMAGENET1K_V1 = 1
        IMAGENET1K_V2 = 2
        DEFAULT = IMAGENET1K_V2

        def transforms(self) -> SimpleNamespace:
            return SimpleNamespace(mean=list(MEAN), std=list(STD), crop_size=[8])

    def get_model(name: str, weights: Weights | None = None, num_classes: int = 7) -> nn.Module:
        return Net(num_classes) if weights is None else published(weights.value)

    root, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    root.models = models
    models.get_model = get_model
    models.get_model_weights = lambda name: Weights
    models.list_models = lambda module=None: ["resnet18"] if module is models else ["resnet18", "fcn_resnet50"]
    monkeypatch.setitem(sys.modules, "torchvision", root)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


@pytest.mark.parametrize(
    ("ref", "seed"),
    [
        ("timm:resnet18.a1_in1k", 1),
        ("torchvision:resnet18.IMAGENET1K_V1", 1),
        ("torchvision:resnet18.IMAGENET1K_V2", 2),
    ],
)
def test_a_tag_is_its_weights_behind_its_normalisation(timm, torchvision, ref: str, seed: int):
    state = torch.random.get_rng_state()
    model = load_model(ref)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(part.training for part in model.modules())
    inside = published(seed).eval()
    mean, std = (torch.tensor(part).reshape(1, 3, 1, 1) for part in (MEAN, STD))
    with torch.no_grad():
        expected = inside((X - mean) / std)
        assert (model(X) - expected).norm() < 1e-5 * expected.norm()
    assert weights_hash(load_model(ref)) == weights_hash(model)


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_weights_of_a_file_are_taken_as_they_are_without_a_tag(timm, torchvision, tmp_path, hub: str):
    net = Net(5).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    state = torch.random.get_rng_state()
    model = load_model(f"{hub}:resnet18:classes=5", tmp_path / "w.safetensors")
    assert torch.equal(state, torch.random.get_rng_state())
    assert weights_hash(model) == weights_hash(net)
    with torch.no_grad():
        assert torch.equal(model(X), net(X))


@pytest.mark.parametrize("ref", ["timm:resnet18.a1_in1k:classes=5", "torchvision:resnet18.IMAGENET1K_V1:classes=5"])
def test_weights_of_a_file_are_normalised_as_their_tag_says(timm, torchvision, tmp_path, ref: str):
    net = Net(5)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    model = load_model(ref, tmp_path / "w.safetensors")
    assert isinstance(model, Normalised)
    assert weights_hash(model.module) == weights_hash(net)
    assert torch.equal(model.mean.flatten(), torch.tensor(MEAN))
    assert torch.equal(model.std.flatten(), torch.tensor(STD))


def test_channels_are_set(timm, tmp_path):
    save_file(Net(5, 1).state_dict(), tmp_path / "w.safetensors")
    assert load_model("timm:resnet18:in_channels=1,classes=5", tmp_path / "w.safetensors")(X[:, :1]).shape == (4, 5)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("timm:resnet18", r"would have random weights. Give --weights FILE, .* Its tags are a1_in1k, half"),
        ("timm:bare", "would have random weights. .* It has no published weights"),
        ("timm:resnet81", "timm has no classifier 'resnet81', .* Did you mean 'resnet18'"),
        ("timm:resnet18.a9", "resnet18 has no weights 'a9', .* Its tags are a1_in1k"),
        ("timm:resnet18.a1_in1k:classes=5", "would have random weights: .* Leave out classes"),
        ("timm:resnet18.half", "'timm:resnet18.half' cannot be made: OSError: We cannot connect. Without a connection"),
        ("timm:resnet18.features", "gives features and no classes"),
        ("timm:resnet18:depth=5", "has no key 'depth'. Its keys are classes, in_channels"),
        ("timm:resnet18:classes=many", "'classes' of .* must be a whole number. Got many"),
        ("timm:resnet18:classes=0", "must be at least 1. Got 0"),
        ("timm:", "Cannot read 'timm:': it ends before a name. It should read timm:NAME.TAG"),
        ("torchvision:", "It should read torchvision:NAME.TAG"),
        ("torchvision:resnet18", "would have random weights. .* Its tags are IMAGENET1K_V1, IMAGENET1K_V2."),
        ("torchvision:fcn_resnet50", "torchvision has no classifier 'fcn_resnet50'"),
        ("torchvision:resnet18.DEFAULT", "has no weights 'DEFAULT'"),
        ("torchvision:resnet18:in_channels=1", "has no key 'in_channels'. Its keys are classes"),
    ],
)
def test_what_a_hub_does_not_have_is_told_in_one_line(timm, torchvision, ref: str, message: str):
    with pytest.raises(BadInput, match=message) as told:
        load_model(ref)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_weights_of_another_shape_are_told(timm, torchvision, tmp_path, hub: str):
    save_file(Net(5).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"'3.bias' has shape \(5,\), expected \(6,\)|'3.weight' has shape"):
        load_model(f"{hub}:resnet18:classes=6", tmp_path / "w.safetensors")


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_a_package_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, hub: str):
    class Nothing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == hub:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == hub]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Nothing(), *sys.meta_path])
    with pytest.raises(BadInput, match=f"{hub} is not installed, .* pip install {hub}") as told:
        load_model(f"{hub}:resnet18")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "RuntimeError: operator .* made for this torch",
        ),
        ("import a_module_that_is_nowhere", "ModuleNotFoundError: No module named 'a_module_that_is_nowhere'"),
    ],
)
def test_a_package_that_cannot_be_imported_is_told(tmp_path, monkeypatch: pytest.MonkeyPatch, code: str, message: str):
    """torchvision built for another torch fails so."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=f"torchvision is installed, but cannot be imported: {message}") as told:
        load_model("torchvision:resnet18")
    assert "\n" not in str(told.value)
