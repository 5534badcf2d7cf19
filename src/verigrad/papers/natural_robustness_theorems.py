"""How Theorems 3.1 and 3.2 and section 3.3 of the natural-robustness paper are redone: errors that grow along trained
nets beside the bounds, and each scheme beside the method that it is likened to. No number is printed there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.models.dynamics.error_growth import ErrorGrowth, error_growth, residual_error_growth
from verigrad.models.dynamics.trajectory import trajectory
from verigrad.models.networks.neural_ode import NeuralODE
from verigrad.models.networks.residual import ResidualNet
from verigrad.models.twin import twin
from verigrad.papers.natural_robustness_schemes import schemes
from verigrad.papers.natural_robustness_settings import half
from verigrad.papers.natural_robustness_sweep import SWEEPS
from verigrad.papers.result import Finding, Measured, Result, Series, compared
from verigrad.papers.workshop import Workshop
from verigrad.solvers import EULER, Fixed

ID = "natural-robustness/theorems"
# ResNet56's steps, Euler's numbers of steps over the neural ODE's interval, and the size of FGSM.
STEPS = (1.0, 0.1, 0.01)
EULERS = (4, 16, 64)
EPS = 0.1
# Images and Lanczos iterations, by scale.
COUNTS = {"smoke": (2, 2), "cpu": (5, 10), "gpu": (50, 20), "paper": (50, 20)}
# Rounding in float32 against a bound that may be met exactly.
SLACK = 1 + 1e-4


def theorems(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Theorem 3.1 on ResNet56, both theorems on the neural ODE, and the schemes of section 3.3."""
    residual = {h: _residual(workshop, scale, h) for h in STEPS}
    walks = {"dopri5": _walk(workshop, scale, None)}
    euler = EULERS[:1] if scale == "smoke" else EULERS
    walks |= {f"Euler, {steps} steps": _walk(workshop, scale, steps) for steps in euler}
    told = {"ResNet56": SWEEPS[scale].told, "neural ODE": half(scale, "CIFAR-10").told}
    for h, growth in residual.items():
        yield from _cells(f"ResNet56, h = {h:g}", growth, told["ResNet56"])
    for name, growth in walks.items():
        yield from _cells(f"neural ODE, {name}", growth, told["neural ODE"])
    yield from _curves("ResNet56, h = 1", residual[1.0], "blocks passed")
    yield from _curves("neural ODE, dopri5", walks["dopri5"], "time")
    yield from _claims(residual, walks)
    yield from schemes(workshop, scale)


def _claims(residual: dict[float, ErrorGrowth], walks: dict[str, ErrorGrowth]) -> Iterator[Finding]:
    """What the paper says of the bounds in sections 3.1 and 3.2."""
    broken = _worst(residual[1.0])
    yield Finding(
        ID,
        "With h = 1 the bound of Theorem 3.1 is destroyed: errors in ResNet56 pass (1 + hK)^n of Eq. (10)",
        broken > SLACK,
        f"the largest error is {broken:.2g} of the bound at its place (K measured, a lower estimate)",
        "Eq. (10) is the triangle inequality step by step, and holds for every h with the blocks' own constants",
    )
    grown = {h: _growth(one) for h, one in residual.items()}
    yield Finding(
        ID,
        "Errors grow more along ResNet56 with h = 1 than with h = 0.1 and 0.01",
        grown[1.0] > max(grown[h] for h in STEPS[1:]),
        ", ".join(f"h = {h:g}: {value:.2f}-fold" for h, value in grown.items()),
    )
    ode = walks["dopri5"]
    yield Finding(
        ID,
        "Errors along the neural ODE keep the bound of Theorem 3.2",
        all(_worst(one) <= SLACK for one in walks.values()),
        ", ".join(f"{name}: {_worst(one):.2g} of the bound" for name, one in walks.items()),
    )
    net = _bound(residual[1.0])
    yield Finding(
        ID,
        "The bound keeps the change in the neural ODE smaller than in ResNet56: its constant is the smaller one",
        _bound(ode) < net,
        f"10^{_bound(ode):.1f} for the neural ODE, 10^{net:.1f} for nine blocks of ResNet56 with h = 1",
        "the exponent is K times the length of the interval, and that of the neural ODE is the longer one",
    )
    yield Finding(
        ID,
        "Errors grow less along the neural ODE than along nine blocks of ResNet56 with h = 1",
        _growth(ode) < grown[1.0],
        f"{_growth(ode):.2f}-fold against {grown[1.0]:.2f}-fold",
        "each error is measured in its own net's features, so that this orders nets of one kind at best",
    )


def _residual(workshop: Workshop, scale: str, h: float) -> ErrorGrowth:
    """The blocks of ResNet56's first stage, all of one shape."""
    at = SWEEPS[scale]
    model = workshop.net(at.stepped(h))
    assert isinstance(model, ResidualNet)
    assert isinstance(model.stages, nn.Sequential)
    first = model.stages[0]
    assert isinstance(first, nn.Sequential)
    x, x_adv = _pair(workshop, model, at.data, scale)
    with torch.no_grad():
        y, z = model.stem(x), model.stem(x_adv)
    return residual_error_growth(list(first), y, z, iterations=COUNTS[scale][1])


def _walk(workshop: Workshop, scale: str, steps: int | None) -> ErrorGrowth:
    """The ODE block of the CIFAR-10 net, under its own solver or under equal steps of Euler's method."""
    at = half(scale, "CIFAR-10")
    model = workshop.net(at.net("neural ODE"))
    assert isinstance(model, NeuralODE)
    x, x_adv = _pair(workshop, model, at.data, scale)
    with torch.no_grad():
        z = model.stem(x_adv)
    walker = model if steps is None else twin(model, method=EULER, control=Fixed(steps=steps))
    return error_growth(trajectory(walker, x, block="block"), z, iterations=COUNTS[scale][1])


def _pair(workshop: Workshop, model: nn.Module, data: str, scale: str) -> tuple[Tensor, Tensor]:
    """The first test images, and what FGSM makes of them."""
    images = workshop.images(data, n=COUNTS[scale][0])
    x, y = images.x.to(workshop.device), images.y.to(workshop.device)
    generator = seeded(0, ID, range(len(images)), workshop.device)
    return x, catalog.build("attack", "fgsm")(model, x, y, Linf(eps=EPS), generator=generator).x_adv


def _cells(row: str, growth: ErrorGrowth, told: str) -> Iterator[Result]:
    n = len(growth.error)
    values = {
        "largest growth of an error": _growth(growth),
        "largest measured K": float(growth.lipschitz.max()),
        "log10 of the exponential bound": _bound(growth),
        "largest error over its step bound": _worst(growth),
    }
    for column, value in values.items():
        yield compared(ID, (row,), column, None, Measured(value, None, None, n), band=0.0, protocol=told)


def _curves(name: str, growth: ErrorGrowth, x_label: str) -> Iterator[Series]:
    """The image whose error grows most, and its bound, on a logarithmic scale."""
    row = int((growth.error / growth.error[:, :1]).amax(1).argmax())
    t = tuple(growth.t[row].tolist())
    error = (growth.error[row] / growth.error[row, 0]).log10().tolist()
    bound = [float(growth.lipschitz[row]) * (at - t[0]) * math.log10(math.e) for at in t]
    if "ResNet" in name:
        bound = (growth.exponential_bound[row] / growth.error[row, 0]).log10().tolist()
    for label, values in (("error", error), ("bound e^(K t)", bound)):
        yield Series(ID, name, label, t, tuple(values), x_label, "log10 of |e_n| / |e_0|")


def _growth(growth: ErrorGrowth) -> float:
    return float((growth.error / growth.error[:, :1]).max())


def _worst(growth: ErrorGrowth) -> float:
    """The largest error over the step bound at its place; the start, where both are equal, is left out."""
    return float((growth.error[:, 1:] / growth.step_bound[:, 1:]).max())


def _bound(growth: ErrorGrowth) -> float:
    """The largest exponent of ten of e^{(b − t0) K}, from K where its power is no float any more."""
    told = (growth.exponential_bound[:, -1] / growth.error[:, 0]).log10()
    reckoned = growth.lipschitz * (growth.t[:, -1] - growth.t[:, 0]) * math.log10(math.e)
    return float(torch.where(told.isfinite(), told, reckoned).max())
