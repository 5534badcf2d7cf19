"""Folders of Hugging Face transformers: the normalisation, the logits, and no code of theirs.

On a stand-in that answers as transformers does, and on transformers itself where it is installed.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.hugging_face import normalisation
from verigrad.models.inspecting import check_classifier
from verigrad.models.loading import load_model
from verigrad.models.normalised import Normalised

X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, pixel_values, return_dict):
        assert return_dict
        return SimpleNamespace(logits=self.head(pixel_values.flatten(1)), hidden_states=None)


class Loader:
    @staticmethod
    def from_pretrained(name: str, **asked: Any) -> tuple[nn.Module, dict[str, Any]]:
        wanted = {
            "local_files_only": True,
            "trust_remote_code": False,
            "use_safetensors": True,
            "output_loading_info": True,
            "attn_implementation": "eager",
        }
        assert asked == wanted
        logging.getLogger("transformers").warning("this must not be seen")
        path = Path(name) / "model.safetensors"
        if not path.exists():
            raise OSError(f"Error no file named model.safetensors found in directory {name}.\nSecond line")
        model, weights = Linear(), load_file(path)
        found = model.load_state_dict(weights, strict=False)
        return model.to(next(iter(weights.values())).dtype), {"missing_keys": set(found.missing_keys)}


@pytest.fixture(params=["stand-in", "transformers"])
def saved(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier of 4 classes for colour images of 8×8, with weights as drawn."""
    folder = tmp_path / "saved"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if request.param == "transformers":
            torch.save(_saved_vit(folder), tmp_path / "original")
        else:
            monkeypatch.setitem(sys.modules, "transformers", _stand_in())
            folder.mkdir()
            model = Linear()
            save_file(model.state_dict(), folder / "model.safetensors")
            torch.save(model, tmp_path / "original")
            (folder / "config.json").write_text(json.dumps({"architectures": ["LinearForImageClassification"]}))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGENET))
    return folder


def _stand_in() -> ModuleType:
    module, logger = ModuleType("transformers"), logging.getLogger("transformers")
    module.AutoModelForImageClassification = Loader
    module.utils = SimpleNamespace(
        logging=SimpleNamespace(
            CRITICAL=logging.CRITICAL,
            get_verbosity=lambda: logger.level,
            set_verbosity=logger.setLevel,
            is_progress_bar_enabled=lambda: True,
            disable_progress_bar=lambda: None,
            enable_progress_bar=lambda: None,
        )
    )
    return module


def _saved_vit(folder: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    config.num_labels = 4
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(folder)
    return model.eval()


def test_its_logits_are_taken_behind_its_normalisation(saved: Path, capsys, caplog):
    before, state = logging.getLogger("transformers").level, torch.random.get_rng_state()
    model = load_model(f"hf:{saved}")
    assert torch.equal(state, torch.random.get_rng_state())
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger("transformers").level == before
    assert not any(part.training for part in model.modules())
    check_classifier(model, X, torch.tensor([0, 1, 3]))
    mean, std = (torch.tensor(IMAGENET[key]).reshape(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    with torch.no_grad():
        original = torch.load(saved.parent / "original", weights_only=False)
        expected = original(pixel_values=(X - mean) / std, return_dict=True).logits
        assert (model(X) - expected).norm() < 1e-5 * expected.norm()
        assert (model(X) - model(X * std + mean)).norm() > 1e-3 * expected.norm()


def test_without_a_preprocessor_nothing_is_known_of_the_input(saved: Path):
    (saved / "preprocessor_config.json").unlink()
    model = load_model(f"hf:{saved}")
    assert not isinstance(model, Normalised)
    with torch.no_grad():
        assert torch.equal(model(X), model.module(pixel_values=X, return_dict=True).logits)


def test_half_precision_becomes_float32(saved: Path):
    path = saved / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"dtype": "float16", "torch_dtype": "float16"}))
    model = load_model(f"hf:{saved}")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    check_classifier(model, X, torch.tensor([0, 1, 3]))


def test_weights_beside_those_of_the_folder_are_refused(saved: Path):
    with pytest.raises(BadInput, match="has weights of its own") as told:
        load_model(f"hf:{saved}", saved / "model.safetensors")
    assert "\n" not in str(told.value)


def _without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name in ("head.bias", "classifier.bias"))
    save_file(
        {name: weights[name] for name in weights if name != gone},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.Config", "AutoModelForImageClassification": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": names}))
    (folder / "own.py").write_text("open('ran', 'w')")


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"There is no config.json in .* save_pretrained\(DIR\)"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read: JSONDecodeError"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold a JSON object. Got list"),
        (_with_code, r"names code of its own \(auto_map\), which is never run"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            "holds an adapter, whose base lies elsewhere",
        ),
        (_without_head, r"are not whole: (head|classifier).bias would be random"),
        (_pickled, "holds no image classifier: OSError: .*model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "holds no image classifier: "),
    ],
)
def test_a_folder_that_is_no_whole_classifier_is_told(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys, spoil, message: str
):
    monkeypatch.chdir(saved)
    spoil(saved)
    with pytest.raises(BadInput, match=message) as told:
        load_model(f"hf:{saved}")
    assert "\n" not in str(told.value)
    assert not (saved / "ran").exists()
    assert capsys.readouterr() == ("", "")


def test_transformers_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"transformers is not installed, .* pip install transformers"):
        load_model(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        (IMAGENET, IMAGENET["image_mean"], IMAGENET["image_std"]),
        ({"image_mean": 0.5, "image_std": 0.25}, [0.5], [0.25]),
        ({"do_normalize": False}, [0.0], [1.0]),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0], "image_std": [1.0]}, [0.5], [0.5]),
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [51.0]}, [0.5], [0.2]),
        ({"do_rescale": False, "do_normalize": False}, [0.0], [1 / 255]),
    ],
)
def test_normalisation_is_what_the_processor_does_to_grey_levels(tmp_path: Path, config, mean, std):
    """Its documented steps: multiply grey levels by `rescale_factor`, then (x - image_mean) / image_std."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    found = normalisation(tmp_path)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, std, rtol=1e-12)
    grey = np.arange(256.0)
    theirs = grey * (config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1)
    if config.get("do_normalize", True):
        theirs = (theirs - np.ravel(config["image_mean"])[0]) / np.ravel(config["image_std"])[0]
    np.testing.assert_allclose((grey / 255 - found.mean[0]) / found.std[0], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ("{}", "must say image_mean and image_std in numbers"),
        ('{"image_mean": ["a"], "image_std": [1]}', "must say image_mean and image_std in numbers"),
        ('{"image_mean": [0.5], "image_std": null}', "must say image_mean and image_std in numbers"),
        ('{"image_mean": [0.5], "image_std": [0.5], "rescale_factor": 0}', "must be positive. Got 0"),
        ('{"image_mean": [0.5], "image_std": [0.5], "do_flip_channel_order": true}', "asks for do_flip_channel_order"),
        ('{"image_mean": [0.5], "image_std": [0.5], "include_top": true}', "asks for include_top"),
    ],
)
def test_a_processor_that_does_more_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(BadInput, match=message) as told:
        normalisation(tmp_path)
    assert "\n" not in str(told.value)
