"""`verigrad train` takes every network of the catalog through an epoch of each data set that fits it.

In a small size through all 1,437 digits and the first images of MNIST and CIFAR-10, and as it is by default, with the
papers' widths, one step.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from verigrad.catalog import entries
from verigrad.models.loading import load_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contracts"))

from test_models import CASES, WRAPPERS, Case

REAL = Path(__file__).parents[3] / "shared" / "data"
SIZES = {"digits": 8, "mnist": 28, "cifar10": 32}
SMALLEST = {"resnet50:channels=4,stem=imagenet": 32, "neural-ode-mnist": 10, "neural-ode-cifar": 10}
"""The least side of the images, by spec: what the stem leaves of a smaller one is nothing."""
MULTIPLES = {"sonet": 8}
"""Networks that halve images exactly, and what the sides must be multiples of: 28 is none of 8."""
WIDE = (
    *sorted({entry.name for entry in entries("model")} - WRAPPERS),
    "sonet:blocks=1-1-1-1,variant=paper",
    "soblock:variant=paper",
    "soblock-wide:variant=paper",
    "wide-resnet:variant=released",
)
"""As wide as in the paper; the further ones are the other forms of those whose paper and code differ."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `--data` takes, by name of the data set: digits, and the real images where they are."""
    if not REAL.is_dir():
        return {"digits": "digits"}
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, REAL / "unpack_cifar10.py", folder], check=True, capture_output=True)
    return {"digits": "digits", "mnist": f"mnist:{REAL / 'mnist'}", "cifar10": f"cifar10:{folder}"}


def fitting(references: dict[str, str], data: str, spec: str) -> str:
    """The reference of a data set, if it is here and its images are of a size for this network."""
    if data not in references:
        pytest.skip(f"no real images in {REAL}")
    name, size = spec.partition(":")[0], SIZES[data]
    if size < SMALLEST.get(spec, 8):
        pytest.skip(f"{spec} is for larger images")
    if size % MULTIPLES.get(name, 1):
        pytest.skip(f"{name} is for sides that are multiples of {MULTIPLES[name]}")
    return references[data]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
@pytest.mark.parametrize("data", SIZES)
def test_an_epoch(verigrad, tmp_path: Path, references: dict[str, str], case: Case, data: str) -> None:
    seen = () if data == "digits" else ("--n", 300)
    run = ("train", "--model", case.spec, "--data", fitting(references, data, case.spec), *seen, "--batch", 50)
    said = verigrad(*run, "--epochs", 1, "--lr", 0.01, "--out", tmp_path / "model")
    assert said.code == 0, said.err
    assert "epoch 1: cross_entropy" in said.out
    assert not load_model(str(tmp_path / "model")).training


@pytest.mark.parametrize("spec", WIDE)
@pytest.mark.parametrize("data", SIZES)
def test_a_step_as_wide_as_in_the_paper(
    verigrad, tmp_path: Path, references: dict[str, str], spec: str, data: str
) -> None:
    run = ("train", "--model", spec, "--data", fitting(references, data, spec), "--n", 4, "--batch", 4)
    said = verigrad(*run, "--epochs", 1, "--lr", 0.001, "--out", tmp_path / "model")
    assert said.code == 0, said.err
    assert "epoch 1: cross_entropy" in said.out
