"""Theorem 3.1 of the SONet paper, measured: norms and eigenvalues of the Jacobian along trajectories.

Four systems y' = σ(By) with B = (−γI, W; −Wᵀ, −γI), of which docs/math/stability.md gives the solutions, and the ODE
blocks of trained nets on test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from verigrad.models.dynamics.jacobian import Derivative, jacobian, log_norm
from verigrad.models.dynamics.lyapunov import stretch
from verigrad.models.dynamics.stability import norm_growth, stability
from verigrad.models.dynamics.trajectory import Trajectory, trajectory
from verigrad.models.ode_block import ODEBlock
from verigrad.papers.result import Finding, Measured, Result, Series, compared
from verigrad.papers.sonet_nets import trained
from verigrad.papers.sonet_settings import SETTINGS, Setting
from verigrad.papers.workshop import Workshop
from verigrad.solvers import PerSample, solve

ID = "sonet/theorem"
NORMS, EIGENVALUES = "norm along the trajectory", "eigenvalues of the Jacobian along the trajectory"
GROWTH, REAL, SPEED, STRETCH = "largest |y(t)| / |y(0)|", "max Re λ(J)", "max μ₂(J)", "‖Dφ‖₂"
# Pieces in which a trajectory is solved, and the tolerance of each.
PIECES, TOL = 40, 1e-9
# What rounding may add to an eigenvalue of a block in single precision, and to a norm at TOL.
ROUNDING = 1e-4
WHY = (
    "eigenvalues bound the growth under a constant, normal J only; μ₂(J), which governs the norm, is positive "
    "unless all slopes of σ are equal"
)


class System(NamedTuple):
    """y' = σ(By), followed from `start` to t1; whether σ is linear."""

    sigma: Callable[[Tensor], Tensor]
    W: tuple[tuple[float, ...], ...]
    gamma: float
    start: tuple[float, ...]
    t1: float
    linear: bool = False

    def field(self, t: Any, y: Any) -> Tensor:
        del t
        return self.sigma(y @ self.matrix.T)

    @property
    def matrix(self) -> Tensor:
        """B, in double precision."""
        w = torch.tensor(self.W, dtype=torch.float64)
        rows, columns = w.shape
        above = torch.cat([torch.zeros(rows, rows, dtype=w.dtype), w], 1)
        below = torch.cat([-w.T, torch.zeros(columns, columns, dtype=w.dtype)], 1)
        return torch.cat([above, below]) - self.gamma * torch.eye(rows + columns, dtype=w.dtype)


def leaky(u: Tensor) -> Tensor:
    return F.leaky_relu(u, 0.01)


def identity(u: Tensor) -> Tensor:
    return u


TURN = ((5 * math.pi,),)
SYSTEMS = {
    "linear, 1 + 1": System(identity, TURN, 0.01, (0.0, 1.0), 1.0, linear=True),
    "LeakyReLU, 1 + 1": System(leaky, TURN, 0.01, (0.0, 1.0), 1.0),
    "LeakyReLU, 2 + 1": System(leaky, ((1.0,), (-1.0,)), 0.01, (0.0, 0.0, 1.0), 60.0),
    "tanh, 1 + 1": System(torch.tanh, ((1.0,),), 0.01, (3.0, 3.0), 4.0),
}


class Seen(NamedTuple):
    """What is measured of one system or block. eigenvalues: complex, of the first image at every accepted time."""

    growth: float
    real: float
    speed: float
    stretch: float | None
    eigenvalues: Tensor
    protocol: str


def theorem(workshop: Workshop, scale: str) -> Iterator[Result | Finding | Series]:
    """Norms and eigenvalues, first of small systems in double precision, then of the blocks of trained nets."""
    found: dict[str, Seen] = {}
    for name, system in SYSTEMS.items():
        found[name], times, sizes = _followed(system)
        yield Series(ID, NORMS, name, times, sizes, "t, in shares of the interval", "|y(t)| / |y(0)|")
    for spec in _setting(scale).theorem[0]:
        for name, seen, curve in _blocks(workshop, spec, scale):
            found[name] = seen
            yield curve
    for name, seen in found.items():
        values = {GROWTH: seen.growth, REAL: seen.real, SPEED: seen.speed, STRETCH: seen.stretch}
        for column, value in values.items():
            if value is not None:
                ours = Measured(value, None, None, 1)
                yield compared(ID, (name,), column, None, ours, band=0.0, protocol=seen.protocol)
        real, imaginary = (tuple(part.tolist()) for part in (seen.eigenvalues.real, seen.eigenvalues.imag))
        yield Series(ID, EIGENVALUES, name, real, imaginary, "Re λ", "Im λ", points=True)
    yield from _claims(found)


def _setting(scale: str) -> Setting:
    """Digits at every scale: the theorem is about any block, and the spectrum of a large one costs too much."""
    return SETTINGS["smoke" if scale == "smoke" else "cpu"]


def _followed(system: System) -> tuple[Seen, tuple[float, ...], tuple[float, ...]]:
    """One system, with times and growth for a curve."""
    y = torch.tensor([system.start], dtype=torch.float64)
    first, sizes, spectra, speeds = float(y.norm()), [1.0], [], []
    for _ in range(PIECES):
        J = jacobian(system.field, 0.0, y)
        spectra.append(torch.linalg.eigvals(J.dense()[0]))
        speeds.append(float(log_norm(J).value.max()))
        length = system.t1 / PIECES
        after = solve(system.field, y, t1=length, control=PerSample(rtol=TOL, atol=TOL / 100, end="clip")).y1
        assert isinstance(after, Tensor)
        y = after.detach()
        sizes.append(float(y.norm()) / first)
    eigenvalues = torch.cat(spectra)
    protocol = f"γ = {system.gamma}, t in [0, {system.t1:g}], tolerance {TOL:g}, float64"
    seen = Seen(max(sizes), float(eigenvalues.real.max()), max(speeds), None, eigenvalues, protocol)
    return seen, tuple(k / PIECES for k in range(PIECES + 1)), tuple(sizes)


def _blocks(workshop: Workshop, spec: str, scale: str) -> Iterator[tuple[str, Seen, Series]]:
    """Every ODE block of one net; the curve is that of the image whose norm grows most."""
    at = _setting(scale)
    n = at.theorem[1]
    model = workshop.net(trained(at, spec)).cpu()  # small, and in parts computed there in any case
    x = workshop.images(at.data, "test", n).x
    workshop.tell(f"trajectories of {spec}")
    for block in (name for name, part in model.named_modules() if isinstance(part, ODEBlock)):
        path = trajectory(model, x, block=block)
        growth, along = norm_growth(path), stability(path)
        most = int(growth.amax(1).argmax())
        eigenvalues = _spectrum(path.rows(torch.tensor([0])))
        name = f"{spec}, {block}"
        protocol = (
            f"{at.epochs} epochs of {at.optimiser} on {at.data}, first {n} test images in one batch, the released "
            "solver's walk at tolerance 0.1, seed 0"
        )
        yield (
            name,
            Seen(
                float(growth.max()),
                float(eigenvalues.real.max()),
                float(along.log_norm.max()),
                float(stretch(path).factor.max()),
                eigenvalues,
                protocol,
            ),
            Series(
                ID,
                NORMS,
                name,
                tuple(path.t[most].tolist()),
                tuple(growth[most].tolist()),
                "t, in shares of the interval",
                "|y(t)| / |y(0)|",
            ),
        )


def _spectrum(path: Trajectory) -> Tensor:
    """All eigenvalues of J at the accepted times of one sample."""
    found = []
    for node, y in enumerate(path.y):
        J = Derivative(field=path.field, t=path.time(node), y=y)
        found.append(torch.linalg.eigvals(J.dense()[0].double()).cpu())
    return torch.cat(found)


def _claims(found: dict[str, Seen]) -> Iterator[Finding]:
    linear = [name for name, system in SYSTEMS.items() if system.linear]
    bent = [name for name in found if name not in linear]
    yield Finding(
        ID,
        "Linear σ: the norm never exceeds its start",
        all(found[name].growth <= 1 + ROUNDING for name in linear),
        _listed(found, linear, lambda one: one.growth),
    )
    yield Finding(
        ID,
        "Any increasing σ: no eigenvalue of J has a positive real part (the step that the proof shows)",
        all(seen.real <= ROUNDING for seen in found.values()),
        _listed(found, list(found), lambda one: one.real),
    )
    yield Finding(
        ID,
        "Any increasing σ: therefore the norm never exceeds its start (the step that the proof concludes)",
        all(found[name].growth <= 1 + ROUNDING for name in bent),
        _listed(found, bent, lambda one: one.growth),
        WHY,
    )
    yield Finding(
        ID,
        "Any increasing σ: perturbations are not stretched by a block",
        all(one.stretch <= 1 + ROUNDING for one in found.values() if one.stretch is not None),
        _listed(found, [name for name in bent if found[name].stretch is not None], lambda one: one.stretch or 0.0),
        WHY,
    )


def _listed(found: dict[str, Seen], names: list[str], value: Callable[[Seen], float]) -> str:
    return "; ".join(f"{name}: {value(found[name]):.3g}" for name in names)
