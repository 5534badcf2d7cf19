"""The contract that every network of the catalog keeps, and networks that break it, one promise each.

A promise is a function that raises AssertionError. Each runs on all networks in a small size, and on a control that was
made to break it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.catalog import build, complete, entries, find, load
from verigrad.core.classifier import batch_coupled, predict
from verigrad.models.checkpoint import load_checkpoint, save_checkpoint
from verigrad.models.inspecting import check_classifier, describe_model, weights_hash
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

CLASSES = 7
WRAPPERS = {"scaled-logits", "quantised-input", "normalised"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network, small: its spec, and the images (C, H, W) that it is shown."""

    spec: str
    shape: tuple[int, int, int] = (1, 8, 8)

    @property
    def name(self) -> str:
        return self.spec.partition(":")[0]

    @property
    def whole(self) -> str:
        return complete(self.spec, in_channels=self.shape[0], classes=CLASSES, size=self.shape[-1])

    def make(self) -> nn.Module:
        return initialised(lambda: build("model", self.whole), 0).eval()

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(count, *self.shape, generator=generator)
        return x, torch.arange(count) % CLASSES


CASES: tuple[Case, ...] = (
    Case(spec="small-conv:channels=4"),
    Case(spec="sonet:channels=4,blocks=1-1-1-1"),
    Case(spec="sonet:channels=4,blocks=1-1-1-1,activation=tanh,variant=paper"),
    Case(spec="skew-conv:channels=4"),
    Case(spec="skew-conv:channels=4,gamma=0.1,activation=tanh,norm=none,variant=paper"),
    Case(spec="skew-linear"),
    Case(spec="odenet:channels=4"),
    Case(spec="odenet:channels=4,method=euler"),
    Case(spec="neural-ode-mnist:channels=4,halvings=1"),
    Case(spec="neural-ode-mnist:channels=4,halvings=1,gradient=adjoint"),
    Case(spec="neural-ode-cifar:channels=4,halvings=1"),
    Case(spec="soblock:channels=4"),
    Case(spec="soblock:channels=4,variant=paper,activation=tanh"),
    Case(spec="soblock-wide:depth=10,widen=1"),
    Case(spec="resnet10:channels=4"),
    Case(spec="resnet18:channels=4"),
    Case(spec="resnet18:channels=4,antisymmetric=true"),
    Case(spec="resnet50:channels=4"),
    Case(spec="resnet50:channels=4,stem=imagenet", shape=(3, 32, 32)),
    Case(spec="resnet56:channels=4"),
    Case(spec="resnet56:channels=4,h=0.01"),
    Case(spec="resnet8:channels=4"),
    Case(spec="preact-resnet18:channels=4"),
    Case(spec="wide-resnet:depth=10,widen=1"),
    Case(spec="wide-resnet:depth=10,widen=1,variant=released"),
    Case(spec="resnext34:channels=4"),
    Case(spec="polynet:channels=4"),
    Case(spec="fractalnet:channels=4"),
    Case(spec="revnet:channels=4"),
)


def gives_finite_logits_for_every_batch(model: nn.Module, case: Case) -> None:
    for count in (1, 2, 5):
        x, y = case.images(count)
        logits = predict(model, x)
        assert logits.shape == (count, CLASSES)
        assert torch.isfinite(logits).all()
        check_classifier(model, x, y)


def gives_the_same_again(model: nn.Module, case: Case) -> None:
    x, _ = case.images(4)
    before = weights_hash(model)
    first = predict(model, x)
    assert torch.equal(predict(model, x), first)
    assert weights_hash(model) == before


def depends_on_no_batch_mates_unless_it_says_so(model: nn.Module, case: Case) -> None:
    if batch_coupled(model):
        return
    x, _ = case.images(6)
    together, alone = predict(model.double(), x.double()), predict(model.double(), x.double(), batch=1)
    assert (together - alone).norm() <= 1e-9 * together.norm()


def can_be_climbed(model: nn.Module, case: Case) -> None:
    x, _ = case.images(3)
    (gradient,) = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)
    assert torch.isfinite(gradient).all()
    assert gradient.flatten(1).any(1).all()


def learns_with_every_weight(model: nn.Module, case: Case) -> None:
    """A few steps of the trainer lower the loss on what they see, and every weight has a part in it.

    A part may be zero: a norm cancels the bias and the scale of what comes before it.
    """
    x, y = case.images(8)
    history = train(model, x, y, Natural(), Recipe(epochs=8, batch=8, lr=0.01)).history
    losses = [epoch.parts["cross_entropy"] for epoch in history]
    assert min(losses[1:]) < losses[0]
    F.cross_entropy(model(x), y).backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]


def survives_a_checkpoint(model: nn.Module, case: Case, folder: Path) -> None:
    save_checkpoint(case.whole, model, folder / "model")
    again = load_checkpoint(folder / "model")
    x, _ = case.images(3)
    assert torch.equal(predict(again, x), predict(model, x))
    assert describe_model(again) == describe_model(model)


PROMISES: tuple[Callable[[nn.Module, Case], None], ...] = (
    gives_finite_logits_for_every_batch,
    gives_the_same_again,
    depends_on_no_batch_mates_unless_it_says_so,
    can_be_climbed,
    learns_with_every_weight,
)


def test_every_network_of_the_catalog_is_here() -> None:
    assert {case.name for case in CASES} == {entry.name for entry in entries("model")} - WRAPPERS


def counted(spec: str) -> str:
    """The parameters of a network as documents write them, counted without drawing any."""
    with torch.device("meta"):
        return f"{sum(weight.numel() for weight in build('model', spec).parameters()):,}"


def test_the_table_of_the_docs_has_every_network_and_its_size() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\|[^|]*\| (\d+)×(\d+)×\d+ \| ([\d,]+) \|", page, re.MULTILINE)
    for spec, channels, size, count in rows:
        given = spec if "classes=" in spec else complete(spec, classes=10)
        assert (spec, counted(complete(given, in_channels=int(channels), size=int(size)))) == (spec, count)
    assert {spec.partition(":")[0] for spec, *_ in rows} == {case.name for case in CASES}


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_the_docstring_tells_size_images_and_source(name: str) -> None:
    entry = find("model", name)
    told = str(load(entry).__doc__)
    assert f"{counted(name)} parameters" in " ".join(told.split())
    assert entry.paper or "No paper's network" in told


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_promise(case: Case, promise: Callable[[nn.Module, Case], None]) -> None:
    promise(case.make(), case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_checkpoint(case: Case, tmp_path: Path) -> None:
    survives_a_checkpoint(case.make(), case, tmp_path)


class Sound(nn.Module):
    """A linear classifier, which keeps every promise."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Infinite(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Drifting(Sound):
    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) + self.count


class Sociable(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0, keepdim=True) * (len(x) > 1))


class Cut(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.round() + 0 * x)


class Dead(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    ("control", "promise"),
    [
        (Infinite, gives_finite_logits_for_every_batch),
        (Drifting, gives_the_same_again),
        (Sociable, depends_on_no_batch_mates_unless_it_says_so),
        (Cut, can_be_climbed),
        (Dead, learns_with_every_weight),
    ],
)
def test_control_fails(control: type[nn.Module], promise: Callable[[nn.Module, Case], None]) -> None:
    case = Case(spec="control")
    promise(initialised(Sound, 0).eval(), case)
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        promise(initialised(control, 0).eval(), case)
