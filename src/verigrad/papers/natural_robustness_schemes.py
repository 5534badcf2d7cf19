"""Section 3.3 of the natural-robustness paper: three nets beside the methods that they are likened to, and whether a
smaller step makes them robust. The derivations are in docs/math/schemes.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.models.networks.fractalnet import FractalBlock
from verigrad.models.networks.polynet import PolyBlock
from verigrad.models.networks.revnet import ReversibleBlock
from verigrad.papers.result import Finding, Measured, Result, compared
from verigrad.papers.workshop import Net, Workshop
from verigrad.solvers import BACKWARD_EULER, Fixed, solve

ID = "natural-robustness/theorems"
FITTED = tuple(2.0**-power for power in range(3, 8))
WIDTH = 6
NETS = {"PolyNet": "polynet", "FractalNet": "fractalnet", "RevNet": "revnet"}
# By scale: data, training images, epochs, channels, images attacked.
SIZES = {
    "smoke": ("digits", 50, 1, 2, 4),
    "cpu": ("digits", None, 5, 8, 100),
    "gpu": ("cifar10", None, 10, 32, 1000),
    "paper": ("cifar10", None, 100, 32, 10000),
}


def schemes(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Section 3.3: distances as powers of h, and nets with h = 1 and h = 0.1 under PGD."""
    yield from _distances()
    yield from _trained(workshop, scale)


def _distances() -> Iterator[Result | Finding]:
    linear, bent = _Affine(bent=False), _Affine(bent=True)
    poly = {name: _slope(_from_backward_euler(f)) for name, f in (("linear f", linear), ("tanh f", bent))}
    fractal = _slope(_from_heun(bent))
    rev = _slope(_from_euler(bent))
    cells = {
        ("PolyNet", "linear f"): poly["linear f"],
        ("PolyNet", "tanh f"): poly["tanh f"],
        ("FractalNet", "tanh f"): fractal,
        ("RevNet", "tanh f"): rev,
    }
    for row, value in cells.items():
        column = "power of h of the distance to the method"
        yield compared(ID, row, column, None, Measured(value, None, None, 1), band=0.0, protocol="")
    for name, value in poly.items():
        yield Finding(
            ID,
            f"PolyNet's block is second order to a step of backward Euler, {name}: the distance falls as h³",
            value > 2.8,
            f"it falls as h^{value:.2f}",
            "F(F(y)) is a composition and not F'(y)F(y), and F(0) is not 0",
        )
    yield Finding(
        ID,
        "FractalNet's block resembles a step of Heun's method: the distance falls with h",
        fractal > 0.5,
        f"it falls as h^{fractal:.2f}",
        "without identities the block goes to 0 as h does, and Heun's step to y",
    )
    yield Finding(
        ID,
        "RevNet's block is a step of Euler's method on X' = f(Y), Y' = f(X)",
        float(_from_euler(bent)(FITTED[0]).norm()) < 1e-12,
        f"the distance falls as h^{rev:.2f}, and for the same method there would be none",
        "it is the semi-implicit method: the second half sees the new first half",
    )


def _trained(workshop: Workshop, scale: str) -> Iterator[Result | Finding]:
    """Whether h = 1 is why the three nets fail."""
    data, train, epochs, channels, n = SIZES[scale]
    told = f"{data}, {epochs} epochs, {channels} channels, PGD of 20 steps at Linf 0.1, n = {n}, seed 0"
    for name, model in NETS.items():
        left: list[float] = []
        for h in (1.0, 0.1):
            net = Net(
                model=f"{model}:channels={channels},h={h:g}",
                data=data,
                n=train,
                epochs=epochs,
                batch=50,
                lr=3e-3,
                optimiser="adam",
                schedule="one-cycle",
            )
            trial = workshop.trial(net, Linf(eps=0.1), n=n)
            found = {"clean %": trial.natural(), "PGD-20 %": trial.left(f"pgd:steps={2 if scale == 'smoke' else 20}")}
            for column, ours in found.items():
                yield compared(ID, (name, f"h = {h:g}"), column, None, ours, band=0.0, protocol=told)
            left.append(found["PGD-20 %"].value)
        yield Finding(
            ID,
            f"h = 1 is why {name} fails: with h = 0.1 at least 10 points more are left under PGD",
            left[1] >= left[0] + 10.0,
            f"{left[0]:.1f} % with h = 1, {left[1]:.1f} % with h = 0.1 ({told})",
        )


class _Affine(nn.Module):
    """y ↦ Ay, or tanh(Ay + b), on rows of six numbers in float64."""

    matrix: Tensor
    shift: Tensor

    def __init__(self, *, bent: bool) -> None:
        super().__init__()
        drawn = seeded(0, ID, range(WIDTH + 1)).normal(WIDTH, dtype=torch.float64) / math.sqrt(WIDTH)
        self.register_buffer("matrix", drawn[:WIDTH])
        self.register_buffer("shift", drawn[WIDTH])
        self.bent = bent

    def forward(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.T + self.shift).tanh() if self.bent else y @ self.matrix.T


def _start(width: int = WIDTH) -> Tensor:
    return seeded(1, ID, range(3)).normal(width, dtype=torch.float64)


def _from_backward_euler(f: nn.Module) -> Callable[[float], Tensor]:
    tight = replace(BACKWARD_EULER, tolerance=1e-13)

    def apart(h: float) -> Tensor:
        exact = solve(lambda t, y: f(y), _start(), t1=h, method=tight, control=Fixed(steps=1)).y1
        assert isinstance(exact, Tensor)
        return PolyBlock(f, order=2, h=h)(_start()) - exact

    return apart


def _from_heun(f: nn.Module) -> Callable[[float], Tensor]:
    def apart(h: float) -> Tensor:
        y = _start()
        return FractalBlock(lambda: f, columns=2, h=h)(y) - (y + h / 2 * (f(y) + f(y + h * f(y))))

    return apart


def _from_euler(f: nn.Module) -> Callable[[float], Tensor]:
    def apart(h: float) -> Tensor:
        y = _start(2 * WIDTH)
        first, second = y.chunk(2, 1)
        explicit = torch.cat([first + h * f(second), second + h * f(first)], 1)
        return ReversibleBlock(f, f, h=h)(y) - explicit

    return apart


def _slope(apart: Callable[[float], Tensor]) -> float:
    """The power of h with which a distance falls, by least squares on logarithms."""
    with torch.no_grad():
        found = torch.tensor([float(apart(h).norm()) for h in FITTED], dtype=torch.float64).log()
    h = torch.tensor(FITTED, dtype=torch.float64).log()
    h = h - h.mean()
    return float((h * (found - found.mean())).sum() / h.square().sum())
