"""The classifiers of `attacks.py`, trained on the spot with fixed seeds, and images that they classify correctly.

- *random*: the residual net with random weights, labelled by its own predictions. At a tiny eps nothing breaks.
- *brittle*: the residual net trained on 10 000 images of CIFAR-10 as they are. At 8/255 nearly everything breaks.
- *digits*: a conv net trained on the digits of scikit-learn, each perturbed by one step of 1.25 · eps from a random
  start, eps = 0.2 (Wong et al. 2020).

The residual net has 0.70 million weights: a convolution with stride 2, then two basic blocks of 32, 64 and 128
channels each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.load import load_data

EPS, DIGITS_EPS = 8 / 255, 0.2
WIDTHS = (32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A classifier in eval mode, and images that it classifies correctly."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.two = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)])
        self.way = nn.Conv2d(inner, outer, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.two(F.relu(self.norms[0](self.one(x)))))
        return F.relu(y + self.way(x))


def residual_net() -> nn.Module:
    torch.manual_seed(0)
    first = WIDTHS[0]
    stem = [nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()]
    inner = (first, *WIDTHS)
    blocks = [
        block
        for before, width in zip(inner, WIDTHS, strict=False)
        for block in (Block(before, width, 1 if width == first else 2), Block(width, width, 1))
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10))


def digits_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )  # fmt: skip


def trained(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, epochs: int, peak: float, batch: int, flips: bool
) -> nn.Module:
    """SGD with momentum and one cycle of the learning rate; `eps` = 0 for images as they are."""
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=epochs * (len(x) // batch))
    draw = torch.Generator().manual_seed(1)
    model.train()
    for _ in track(range(epochs), "training", console=Console(stderr=True)):
        for rows in torch.randperm(len(x), generator=draw).split(batch)[: len(x) // batch]:
            images, labels = x[rows], y[rows]
            if flips:
                turned = torch.rand(batch, generator=draw) < 0.5
                images = torch.where(turned.reshape(-1, 1, 1, 1), images.flip(3), images)
            if eps:
                images = perturbed(model, images, labels, eps, draw)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            cycle.step()
    return model


def perturbed(model: nn.Module, x: Tensor, y: Tensor, eps: float, draw: torch.Generator) -> Tensor:
    threat = Linf(eps=eps)
    noise = (2 * torch.rand(x.shape, generator=draw) - 1) * eps
    start = threat.project(x + noise, x).requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), y, reduction="sum"), start)
    return threat.project(start.detach() + 1.25 * eps * gradient.sign(), x)


def kept(
    weights: Path | None, name: str, make: Callable[[], nn.Module], train: Callable[[nn.Module], object]
) -> nn.Module:
    """A trained model, from `weights`/name.safetensors if that is there; else it is trained, and put there."""
    model = make()
    file = weights / f"{name}.safetensors" if weights else None
    if file is not None and file.is_file():
        model.load_state_dict(load_file(file))
    else:
        train(model)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(model.state_dict(), file)
    return model.eval()


def right(model: nn.Module, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        rows = torch.cat([model(part).argmax(1) for part in x.split(500)]) == y
    return x[rows][:count], y[rows][:count]


def digits_subject(weights: Path | None, count: int) -> Subject:
    images, test = load_data("digits", "train"), load_data("digits")

    def train(model: nn.Module) -> None:
        trained(model, images.x, images.y, eps=DIGITS_EPS, epochs=30, peak=0.1, batch=50, flips=False)

    model = kept(weights, "digits", digits_net, train)
    x, y = right(model, test.x, test.y, count)
    return Subject(name="digits", model=model, x=x, y=y, eps=DIGITS_EPS)


def cifar_subject(folder: Path, weights: Path | None, count: int) -> Subject:
    def train(model: nn.Module) -> None:
        images = load_data(f"cifar10:{folder}", "train", 10_000)
        trained(model, images.x, images.y, eps=0.0, epochs=4, peak=0.1, batch=100, flips=True)

    test = load_data(f"cifar10:{folder}", n=500)
    model = kept(weights, "brittle", residual_net, train)
    x, y = right(model, test.x, test.y, count)
    return Subject(name="brittle", model=model, x=x, y=y, eps=EPS)


def random_subject(count: int) -> Subject:
    model = residual_net().eval()
    x = seeded(1, "benchmark", range(count)).uniform(3, 32, 32)
    with torch.no_grad():
        return Subject(name="random", model=model, x=x, y=model(x).argmax(1), eps=1e-6)
