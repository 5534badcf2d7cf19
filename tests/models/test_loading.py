"""Every reference that cannot be a model gives one clear line; what can be, loads in eval mode."""

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from verigrad.core.errors import BadInput
from verigrad.models.loading import load_model, save_checkpoint, weights_hash
from verigrad.models.masks import ScaledLogits
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.networks.sonet import SONet
from verigrad.training.trainer import initialised

FACTORIES = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(64, 10)
    def forward(self, x):
        return self.head(self.norm(x).flatten(1))

def make():
    import own_part          # lies in the working directory too
    return Own()

def broken():
    raise RuntimeError("no such width\\nsecond line")

def leaves():
    raise SystemExit(0)

def wants(width):
    return Own()

def number():
    return 3

constant = 3

class Silent(Own):
    def train(self, mode=True):
        super().train(mode)         # and returns nothing

class Stubborn(Own):
    def train(self):
        super().train()

class Leaving(Own):
    def train(self, mode=True):
        raise SystemExit(0)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(10)

class Nowhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10, device="meta")

def loud():
    print("made")
    return Own()

def not_a_number():
    model = Own()
    nn.init.constant_(model.head.weight, float("nan"))
    return model
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's own."""
    (tmp_path / "own_models.py").write_text(FACTORIES)
    (tmp_path / "own_part.py").write_text("")
    (tmp_path / "own_faulty.py").write_text("1 / 0")
    (tmp_path / "own_needy.py").write_text("import a_module_that_is_nowhere")
    (tmp_path / "own_done.py").write_text("import sys; sys.exit(0)")
    (tmp_path / "own_loud.py").write_text("print('imported'); from own_models import loud")
    (tmp_path / "own_program.py").write_text("import argparse; argparse.ArgumentParser().parse_args(['--nonsense'])")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("own_models", "own_part", "own_faulty", "own_needy", "own_loud"):
        sys.modules.pop(name, None)


@pytest.fixture
def net() -> torch.nn.Module:
    return initialised(lambda: SmallConvNet(channels=4), 3).eval()


def test_a_factory_of_the_working_directory_gives_a_model_in_eval_mode(here: Path):
    before = list(sys.path)
    model = load_model("own_models:make")
    assert not model.training
    assert not model.norm.training
    assert sys.path == before


def test_a_model_whose_train_returns_nothing_is_a_model(here: Path):
    model = load_model("own_models:Silent")
    assert type(model).__name__ == "Silent"
    assert not any(part.training for part in model.modules())


def test_what_a_factory_prints_is_no_output(here: Path, capsys: pytest.CaptureFixture[str]):
    load_model("own_loud:loud")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "imported\nmade\n")


def test_a_class_is_a_factory(here: Path):
    assert type(load_model("own_models:Own")).__name__ == "Own"
    assert isinstance(load_model("verigrad.models.networks.small:SmallConvNet"), SmallConvNet)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("nowhere", "There is no model 'nowhere'"),
        ("own_models.py", "own_models.py is a file"),
        ("own_models:", "is named package.module:factory. Got 'own_models:'"),
        ("own_nothing:make", "There is no module 'own_nothing'"),
        ("own_models.deeper:make", "There is no module 'own_models.deeper'|'own_models' is not a package"),
        ("own_models:nothing", "There is no 'nothing' in the module 'own_models'"),
        ("own_faulty:make", "'own_faulty' cannot be imported: ZeroDivisionError: division by zero."),
        ("own_needy:make", "'own_needy' cannot be imported: ModuleNotFoundError: No module named 'a_module_that"),
        ("own_models:broken", "The factory 'own_models:broken' failed: RuntimeError: no such width. "),
        ("own_models:leaves", "The factory 'own_models:leaves' failed: SystemExit: 0. "),
        ("own_program:make", "'own_program' cannot be imported: SystemExit: 2."),
        ("own_done:make", "'own_done' cannot be imported: SystemExit: 0."),
        ("own_models:Stubborn", r"cannot be put into eval mode: TypeError: .* Mend its train\(self, mode=True\)"),
        ("own_models:Leaving", "cannot be put into eval mode: SystemExit: 0."),
        ("own_models:Lazy", "The weight 'head.weight' of the model has no numbers yet"),
        ("own_models:Nowhere", "The weight 'head.weight' of the model has no numbers yet"),
        ("normalised:mean=" + 2000 * "(", "nested too deeply"),
        ("", "The model has no name"),
        (" ", "The model has no name"),
        ("own_models:wants", "failed: TypeError: .*'width'. It is called without arguments"),
        ("own_models:number", "must return a torch.nn.Module. Got int"),
        ("own_models:constant", "is no factory: it is a int"),
        ("own_models:not_a_number", "The weight 'head.weight' of the model holds NaN or infinity"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(here: Path, ref: str, message: str):
    with pytest.raises(BadInput, match=message) as told:
        load_model(ref)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "spec", ["small-conv:channels=4", "small_conv:channels=4", "Small-Conv:channels=4,in_channels=1"]
)
def test_a_spec_of_the_catalog_is_a_model_with_weights_from_a_file(tmp_path: Path, net: torch.nn.Module, spec: str):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    state = torch.random.get_rng_state()
    model = load_model(spec, tmp_path / "w.safetensors")
    assert torch.equal(state, torch.random.get_rng_state())
    assert not model.training
    assert weights_hash(model) == weights_hash(net)


@pytest.mark.parametrize(
    "spec", ["small-conv", "small_conv:channels=4", "sonet", "scaled-logits:module=small-conv,scale=2"]
)
def test_random_weights_of_a_spec_are_refused(tmp_path: Path, spec: str):
    with pytest.raises(BadInput, match=r"would have random weights. Give --weights FILE, or train it") as told:
        load_model(spec)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("small-conv:depth=4", "has no key 'depth'"),
        ("small-conv:channels=x", "'channels' of small-conv must be a whole number"),
        ("small-conv:channels=4,", "Cannot read"),
        ("small-conv:channels=0", "'channels' of SmallConvNet must be at least 1. Got 0"),
        (
            f"small-conv:channels={10**12}",
            "The model 'small-conv:channels=1000000000000' cannot be built: RuntimeError",
        ),
        (f"small-conv:channels={10**30}", "cannot be built: .* Check its numbers"),
        ("scaled-logits:scale=1,module=" + 2000 * "scaled-logits(module=", "cannot be built: RecursionError"),
        ("smal-conv", "There is no model 'smal-conv': .* no such model in the catalog"),
    ],
)
def test_a_spec_that_is_none_is_told(tmp_path: Path, net: torch.nn.Module, spec: str, message: str):
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=message) as told:
        load_model(spec, tmp_path / "w.safetensors")
    assert "\n" not in str(told.value)


def test_a_factory_in_a_module_of_a_catalog_name_is_a_factory(here: Path):
    (here / "sonet.py").write_text(FACTORIES)
    try:
        assert type(load_model("sonet:make")).__module__ == "sonet"
    finally:
        sys.modules.pop("sonet", None)


def test_a_folder_of_a_catalog_name_is_a_folder(here: Path, net: torch.nn.Module):
    save_checkpoint("small-conv:channels=4", net, here / "sonet")
    assert weights_hash(load_model("sonet")) == weights_hash(net)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_weights_are_loaded_from_a_file(tmp_path: Path, net: torch.nn.Module, name: str):
    path = tmp_path / name
    save_file(net.state_dict(), path) if name.endswith("safetensors") else torch.save(net.state_dict(), path)
    save_checkpoint("small-conv:channels=4", initialised(lambda: SmallConvNet(channels=4), 0), tmp_path / "saved")
    assert weights_hash(load_model(str(tmp_path / "saved"), path)) == weights_hash(net)


def test_a_state_dict_may_lie_under_that_name(tmp_path: Path, net: torch.nn.Module):
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    save_checkpoint("small-conv:channels=4", net, tmp_path / "saved")
    load_model(str(tmp_path / "saved"), tmp_path / "w.pt")


def _pickled(path: Path, net: torch.nn.Module) -> None:
    torch.save(net, path)


def _evil(path: Path, net: torch.nn.Module) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("this must never be printed",))

    path.write_bytes(pickle.dumps(Evil(), protocol=2))


def _cut(path: Path, net: torch.nn.Module) -> None:
    whole = path.with_name("whole" + path.suffix)
    torch.save(net.state_dict(), whole) if path.suffix == ".pt" else save_file(net.state_dict(), whole)
    path.write_bytes(whole.read_bytes()[:-2000])


def _missing_key(path: Path, net: torch.nn.Module) -> None:
    weights = net.state_dict()
    del weights["layers.0.bias"]
    save_file(weights, path)


def _parallel(path: Path, net: torch.nn.Module) -> None:
    save_file({f"module.{name}": tensor for name, tensor in net.state_dict().items()}, path)


def _extra_key(path: Path, net: torch.nn.Module) -> None:
    save_file({**net.state_dict(), "more": torch.zeros(1)}, path)


def _wrong_shape(path: Path, net: torch.nn.Module) -> None:
    save_file(SmallConvNet(channels=8).state_dict(), path)


def _nan(path: Path, net: torch.nn.Module) -> None:
    weights = net.state_dict()
    weights["layers.6.bias"] = torch.full((64,), torch.nan)
    save_file(weights, path)


def _changed(change):
    """A writer of weights of which one is changed."""

    def write(path: Path, net: torch.nn.Module) -> None:
        weights = net.state_dict()
        torch.save(weights | {"layers.6.weight": change(weights["layers.6.weight"])}, path)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", _changed(lambda w: w.to("meta")), "'layers.6.weight' .* is a meta tensor"),
        ("w.pt", _changed(lambda w: w.to_sparse()), "'layers.6.weight' .* is sparse, nested or quantised"),
        ("w.pt", _changed(lambda w: w * 1j), "'layers.6.weight' .* is complex, and the model has a real one"),
        ("none.pt", lambda path, net: None, "There is no weights file"),
        ("w.txt", lambda path, net: path.write_text("x"), "must be a .safetensors, .pt or .pth file. Got 'w.txt'"),
        ("w.pt", _pickled, "holds pickled code, which is never run"),
        ("evil.pt", _evil, "holds pickled code, which is never run"),
        ("w.pt", lambda path, net: path.write_bytes(b"garbage"), "is no whole PyTorch file"),
        ("w.pt", lambda path, net: path.write_bytes(b""), "is no whole PyTorch file"),
        ("w.pt", _cut, "is no whole PyTorch file"),
        ("w.pt", lambda path, net: torch.save([1, 2], path), "must hold a table of tensors"),
        ("w.safetensors", _cut, "is no whole safetensors file"),
        ("w.safetensors", _missing_key, "'layers.0.bias' is missing"),
        ("w.safetensors", _parallel, "'layers.0.weight' is missing. Every name there begins with 'module.'"),
        ("w.safetensors", _extra_key, "it has no 'more'"),
        ("w.safetensors", _wrong_shape, r"'layers.0.weight' has shape \(8, 1, 3, 3\), expected \(4, 1, 3, 3\)"),
        ("w.safetensors", _nan, "The weight 'layers.6.bias' of the model holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path: Path, net: torch.nn.Module, capsys, name, write, message):
    save_checkpoint("small-conv:channels=4", net, tmp_path / "saved")
    write(tmp_path / name, net)
    with pytest.raises(BadInput, match=message) as told:
        load_model(str(tmp_path / "saved"), tmp_path / name)
    assert "\n" not in str(told.value)
    assert capsys.readouterr().out == ""


CONFIGS = [
    "small-conv:channels=4",
    {"name": "sonet", "kwargs": {"channels": 4, "blocks": [1, 1, 1, 1], "in_channels": 1, "grid": "frozen"}},
    {"name": "scaled-logits", "kwargs": {"scale": 1000.0, "module": {"name": "small-conv", "kwargs": {"channels": 4}}}},
    {"name": "quantised-input", "kwargs": {"levels": 8, "module": "small-conv:channels=4"}},
    {"name": "normalised", "kwargs": {"mean": [0.1], "std": [0.5], "module": "small-conv"}},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, config):
    from verigrad.models.checkpoint import build_model

    model = initialised(lambda: build_model(config), 7).eval()
    save_checkpoint(config, model, tmp_path / "saved")
    state = torch.random.get_rng_state()
    loaded = load_model(str(tmp_path / "saved"))
    assert torch.equal(state, torch.random.get_rng_state())
    assert not loaded.training
    assert weights_hash(loaded) == weights_hash(model)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["model.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_checkpoint_replaces_an_earlier_one_and_nothing_else(tmp_path: Path, net: torch.nn.Module):
    save_checkpoint("small-conv:channels=8", SmallConvNet(channels=8), tmp_path / "saved")
    save_checkpoint("small-conv:channels=4", net, tmp_path / "saved")
    assert weights_hash(load_model(str(tmp_path / "saved"))) == weights_hash(net)
    (tmp_path / "other").mkdir()
    with pytest.raises(BadInput, match="exists and is no checkpoint"):
        save_checkpoint("small-conv:channels=4", net, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "saved"]


def test_a_few_models_in_one_another_come_back(tmp_path: Path):
    from verigrad.models.checkpoint import build_model

    model = initialised(lambda: build_model(_nested(16)), 7)
    save_checkpoint(_nested(16), model, tmp_path / "saved")
    assert weights_hash(load_model(str(tmp_path / "saved"))) == weights_hash(model)


def test_a_description_of_another_model_is_refused_and_nothing_is_written(tmp_path: Path, net: torch.nn.Module):
    with pytest.raises(BadInput, match=r"does not fit the model: 'layers.0.bias' is \(4,\) in the model and \(16,\)"):
        save_checkpoint("small-conv", net, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def _edit(path: Path, **changes: object) -> None:
    description = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps(description | changes))


def _overwrite(path: Path, text: str) -> None:
    (path / "model.json").write_text(text)


def _nested(levels: int) -> object:
    config: object = "small-conv:channels=4"
    for _ in range(levels):
        config = {"name": "scaled-logits", "kwargs": {"scale": 2.0, "module": config}}
    return config


def _sized(**kwargs: object) -> dict[str, object]:
    return {"name": "small-conv", "kwargs": kwargs}


def _cut_file(path: Path, name: str) -> None:
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "model.json").unlink(), "half-written or none: it has no model.json"),
        (lambda path: (path / "model.safetensors").unlink(), "half-written or none: it has no model.safetensors"),
        (lambda path: _cut_file(path, "model.json"), "half-written: model.json cannot be read"),
        (lambda path: _cut_file(path, "model.safetensors"), "is no whole safetensors file"),
        (lambda path: _edit(path, format=99), "no description of format 1"),
        (lambda path: _edit(path, model="small-conv:channels=5"), r"'layers.0.weight' has shape \(4, 1, 3, 3\)"),
        (lambda path: _edit(path, model="smal-conv"), "Did you mean 'small-conv'"),
        (lambda path: _edit(path, model={"name": "small-conv", "kwargs": {"depth": 3}}), "cannot be built from"),
        (lambda path: _edit(path, model={"kwargs": {}}), "by 'name' and 'kwargs'"),
        (lambda path: _overwrite(path, 100_000 * "[" + 100_000 * "]"), "is nested too deeply"),
        (lambda path: _overwrite(path, 5000 * "9"), "model.json cannot be read"),
        (lambda path: _edit(path, model=_nested(17)), "more than 16 models in one another"),
        (lambda path: _edit(path, model=_nested(200)), "more than 16 models in one another"),
        (lambda path: _edit(path, model=_sized(channels=-3)), "'channels' of SmallConvNet must be at least 1. Got -3"),
        (lambda path: _edit(path, model=_sized(channels=10**12)), r"cannot be built from \['channels'\]: RuntimeError"),
        (lambda path: _edit(path, model=_sized(channels=10**30)), r"cannot be built from \['channels'\]"),
        (lambda path: _edit(path, model=_sized(channels="many")), r"cannot be built from \['channels'\]: TypeError"),
        (lambda path: _edit(path, weights_sha256="0"), "are not those that were saved"),
    ],
)
def test_a_spoilt_checkpoint_is_told(tmp_path: Path, net: torch.nn.Module, spoil, message):
    path = tmp_path / "saved"
    save_checkpoint("small-conv:channels=4", net, path)
    spoil(path)
    with pytest.raises(BadInput, match=message) as told:
        load_model(str(path))
    assert "\n" not in str(told.value)


def test_the_hash_is_of_names_types_shapes_and_bytes(net: torch.nn.Module):
    import copy

    assert weights_hash(net) == weights_hash(copy.deepcopy(net))
    hashes = {weights_hash(net), weights_hash(SONet(4, (1, 1, 1, 1))), weights_hash(ScaledLogits(net, 2.0))}
    hashes |= {weights_hash(ScaledLogits(net, 3.0)), weights_hash(copy.deepcopy(net).double())}
    hashes |= {weights_hash(copy.deepcopy(net).to(torch.bfloat16))}
    flipped = copy.deepcopy(net)
    with torch.no_grad():
        flipped.layers[0].weight.view(-1)[0].mul_(1 + 2**-20)
    assert len(hashes | {weights_hash(flipped)}) == 7
