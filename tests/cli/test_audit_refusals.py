"""Whatever is wrong with model, data or words is one line, exit code 2, and nothing is left behind."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from goods import HONEST, SMALL, WEIGHTS, contents, read
from safetensors.torch import save_file

from verigrad.data.load import load_data


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return open, ("executed", "w")


def bad_files(folder: Path) -> None:
    x, y = np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 2])
    made = {
        "nan": (np.where(np.arange(8) == 3, np.nan, x), y),
        "bright": (x + 3, y),
        "dark": (x - 0.5, y),
        "colour": (np.zeros((3, 3, 8, 8), np.float32), y),
        "large": (np.zeros((3, 1, 9, 9), np.float32), y),
        "labels": (x, y + 8),
        "negative": (x, y - 1),
        "fewer": (x, y[:2]),
        "empty": (x[:0], y[:0]),
        "objects": (x, np.array([0, "one", None], dtype=object)),
    }
    for name, (images, labels) in made.items():
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    np.savez(folder / "noy.npz", x=x)
    (folder / "text.npz").write_text("not an archive")
    (folder / "hollow").mkdir(exist_ok=True)
    torch.save({"weight": Payload()}, folder / "payload.pt")
    (folder / "old.pt").write_bytes(pickle.dumps({"weight": Payload()}))
    save_file({"weight": torch.zeros(3)}, folder / "misfit.safetensors")
    (folder / "syntax.py").write_text("def f(:\n")


BAD: list[tuple[dict[str, object], str]] = [
    ({"model": "nowhere:model"}, "no module 'nowhere'"),
    ({"model": "nets:nothing"}, "no 'nothing' in the module 'nets'"),
    ({"model": "nets:number"}, "cannot be called"),
    ({"model": "nets:broken"}, "failed: ValueError: no such thing."),
    ({"model": "nets:leaves"}, "failed: SystemExit: 0."),
    ({"model": "nets:Counts"}, "must be floating point. Got int64"),
    ({"model": ""}, "has no name"),
    ({"model": "nets"}, "There is no model 'nets'"),
    ({"model": "nets.py"}, "nets.py is a file"),
    ({"model": "hollow"}, "no model.json"),
    ({"model": "syntax:f"}, "cannot be imported: SyntaxError"),
    ({"model": "nets:NanWeights", "--weights": None}, "'bias' of the model holds NaN"),
    ({"model": "nets:Pair"}, "to one tensor of logits"),
    ({"model": "nets:Probabilities"}, "leave out the softmax"),
    ({"model": "nets:Two"}, "has 2 classes, but the labels go up to 9"),
    ({"model": "nets:Twenty", "--n": 20}, "a batch of 20 is needed. Attacks drop"),
    ({"model": "nets:InPlace"}, "changes its images in place"),
    ({"model": "nets:Inference"}, "inference_mode"),
    ({"model": "nets:Uncopied"}, "cannot be copied: TypeError"),
    ({"--weights": "none.safetensors"}, "no weights file none.safetensors"),
    ({"--weights": "misfit.safetensors"}, "'weight' has shape (3,), expected (10, 64)"),
    ({"--weights": "digits.npz"}, "must be a .safetensors, .pt or .pth file"),
    ({"--weights": "payload.pt"}, "holds pickled code, which is never run"),
    ({"--weights": "old.pt"}, "no whole PyTorch file of tensors"),
    ({"--data": "none.npz"}, "no file 'none.npz'"),
    ({"--data": "nonsense"}, "no data 'nonsense'"),
    ({"--data": "hollow"}, "one folder of images for each class"),
    ({"--data": "text.npz"}, "'text.npz' is no .npz archive"),
    ({"--data": "noy.npz"}, "must hold the arrays x and y"),
    ({"--data": "nan.npz"}, "holds NaN"),
    ({"--data": "bright.npz"}, "Got values from 3 to 3. Divide by 255"),
    ({"--data": "dark.npz"}, "Normalisation belongs into the model"),
    ({"--data": "colour.npz"}, "does not take images of shape (3, 3, 8, 8)"),
    ({"--data": "large.npz"}, "does not take images of shape (3, 1, 9, 9)"),
    ({"--data": "labels.npz"}, "has 10 classes, but the labels go up to 10"),
    ({"--data": "negative.npz"}, "from 0 up"),
    ({"--data": "fewer.npz"}, "must have shape (3,)"),
    ({"--data": "empty.npz"}, "holds no images"),
    ({"--data": "objects.npz"}, "could run code"),
    ({"--threat": "l1:3"}, "linf:EPS, l2:EPS or l0:PIXELS"),
    ({"--threat": "linf:-0.1"}, "Got -0.1"),
    ({"--threat": "linf:nan"}, "linf:8/255"),
    ({"--threat": "l0:2.5"}, "l0:PIXELS"),
    ({"--claim-attack": "pdg"}, "Did you mean 'pgd'?"),
    ({"--claim-attack": "pgd:steps=many"}, "steps"),
    ({"--claim-attack": "on-twin:attack=fgsm,change=frozen-grid"}, "ODE blocks"),
    ({"--claim": 62}, "Divide a percentage by 100"),
    ({"--claim": "nan"}, "a fraction in [0, 1]. Got nan"),
    ({"--n": 101}, "Ask for at most 100"),
    ({"--n": 0}, "at least 1. Got 0"),
    ({"--batch": 0}, "'--batch'"),
    ({"--seed": -1}, "The 'seed' must be"),
    ({"--out": "digits.npz"}, "digits.npz"),
    ({"--out": "digits.npz/audit"}, "digits.npz/audit"),
]


@pytest.mark.parametrize(("change", "part"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_one_line_and_leaves_nothing(verigrad, shop: Path, change: dict, part: str) -> None:
    if not (shop / "payload.pt").exists():
        bad_files(shop)
    words = {"--weights": "means.safetensors", "--data": "digits.npz", "--threat": "linf:0.1", "--out": "refused"}
    words |= change
    model = words.pop("model", "nets:Means")
    before = contents(shop)
    chosen = [word for option, value in words.items() if value is not None for word in (option, value)]
    said = verigrad("audit", model, *chosen)
    assert part in said.error
    assert said.out == ""
    assert contents(shop) == before
    assert not Path("refused").exists()
    assert not Path("executed").exists()


def test_a_model_that_ends_the_process_passes_no_gate(verigrad, shop: Path, tmp_path: Path) -> None:
    said = verigrad("audit", "nets:Deserter", *WEIGHTS, *SMALL, "--n", 4, "--out", tmp_path / "audit", "--gate")
    assert "SystemExit: 0" in said.err
    assert said.code == 2


def test_the_payload_would_have_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload())).close()
    assert Path("executed").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where not even root may write")
def test_a_folder_that_cannot_be_written(verigrad, shop: Path) -> None:
    assert "cannot be written" in verigrad(*HONEST, *SMALL, "--out", "/proc/audit").error


def test_a_logit_that_is_not_finite_on_any_image_is_refused(verigrad, shop: Path, tmp_path: Path, monkeypatch) -> None:
    data = load_data("digits.npz")
    assert verigrad(*HONEST, *SMALL, "--n", 1, "--out", tmp_path / "1").code == 0
    monkeypatch.setattr(sys.modules["nets"], "LAST", float(data.x[90].sum()))
    first = int((data.x.flatten(1).sum(1) == data.x[90].sum()).nonzero()[0])
    command = ("audit", "nets:NanOnTheLast", *WEIGHTS, "--data", "digits.npz", "--threat", "linf:0.1", "--batch", 10)
    assert f"not finite on image {first}" in verigrad(*command, "--out", tmp_path / "2").error
    assert not (tmp_path / "2").exists()


def test_batch_norm_is_put_into_eval_mode_and_never_moves(verigrad, shop: Path, tmp_path: Path) -> None:
    """In training mode a prediction would depend on batch-mates, and the running means would move."""
    said = verigrad("audit", "nets:Normed", *SMALL, "--n", 8, "--out", tmp_path / "audit")
    assert said.code == 0, said.err
    told = read(tmp_path / "audit")
    assert not told["batch_coupled"]
    assert next(check for check in told["health"] if check["name"] == "batch_mates")["value"] < 1e-4
    assert verigrad("verify", tmp_path / "audit").code == 0, "the weights, running means among them, are what they were"
