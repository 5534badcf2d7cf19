"""How stable are the ODE blocks of trained nets along the walks that their solver takes, natural and attacked?

    OMP_NUM_THREADS=1 python benchmarks/stability.py                     # renews benchmarks/stability.json
    OMP_NUM_THREADS=1 python benchmarks/stability.py "released SONet"    # renews what it says of that net

Three nets of the digits: the saved SONet (released form: GroupNorm, γ = 0, z(0) = 0.1), and two small ones of the
paper's form (no norm, z(0) = 1) with γ = 0 and 0.1, trained here. All are solved by Dopri5 at tolerance 0.1 with one
step for the batch, in float64. Attacked images: PGD-20 on the margin, Linf 0.12, gradients with the grid frozen. For
each block:

    growth      ‖y(t)‖ / ‖y(0)‖, over accepted times
    log_norm    μ₂(J), and norm ‖J‖₂, over accepted times (Lanczos, from below)
    abscissa    max Re λ(J), all eigenvalues, over accepted times of the first sample; null above 1,100 entries
    stretch     ‖Dφ‖₂ of the walk, and its logarithm over the time (finite-time Lyapunov exponent)
    of_flow     growth and stretch at tolerance 1e-6 instead, and exp(mean μ₂), which bounds the flow's stretch, of the
                first samples
    error       |z_n − y_n| / |z_0 − y_0| at its largest, for random ε of the attack's size and for the attack itself,
                with the bounds of Chu, Wei & Zhao at the end of the walk

Each number is the largest over the samples. `counterexamples` are those of docs/math/stability.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import predict
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.models.dynamics.error_growth import error_growth
from verigrad.models.dynamics.lyapunov import stretch
from verigrad.models.dynamics.stability import abscissas, stability
from verigrad.models.dynamics.trajectory import Trajectory, trajectory, walked
from verigrad.models.fields import SkewConvField, SkewLinearField
from verigrad.models.loading import load_model
from verigrad.models.ode_block import RELEASED, ODEBlock
from verigrad.models.twin import twin
from verigrad.solvers import DOPRI5, EULER, RK4, BatchCoupled, Direct, Fixed, PerSample, solve
from verigrad.solvers.state import State
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

HERE = Path(__file__).resolve().parent
N = {"paper form, gamma 0": 50, "paper form, gamma 0.1": 50, "released SONet": 20}
EPS, SEED, N_ABSCISSA, N_FLOW, LARGEST = 0.12, 0, 1, 8, 1100
RECIPE = {"epochs": 40, "optimiser": "adam", "lr": 5e-3}


class PaperNet(nn.Module):
    """The paper's form in small: a block 1 → 8, a block 8 → 16 that halves, average pooling, the classifier block."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.stem = ODEBlock(SkewConvField(1, 8, gamma=gamma, variant="paper"), RELEASED)
        self.stage = ODEBlock(SkewConvField(8, 16, stride=2, gamma=gamma, variant="paper"), RELEASED)
        self.classifier = ODEBlock(SkewLinearField(16, 10, gamma=gamma, variant="paper"), RELEASED)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.stage(self.stem(x)).mean((2, 3)))


def net_named(name: str) -> nn.Module:
    if name == "released SONet":
        return load_model(str(HERE.parent / "tests" / "nets" / "sonet"))
    gamma = float(name.rsplit(" ", 1)[1])
    data = load_data("digits", "train")
    net = initialised(lambda: PaperNet(gamma), SEED)
    train(net, data.x, data.y, Natural(), Recipe(**RECIPE, seed=SEED))
    return net.eval()


def attacked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    attack = PGD(steps=20, score="margin", random_start=False, keep="last")
    frozen = twin(net, gradient=Direct(grid="frozen"))
    return attack(frozen, x, y, Linf(eps=EPS), generator=seeded(SEED, "stability", range(len(x)))).x_adv


def top(values: Tensor) -> float:
    return round(float(values.max()), 6)


def walk_row(path: Trajectory) -> dict[str, Any]:
    dim = sum(part[0].numel() for part in path.y[0])
    few = path.rows(torch.arange(N_ABSCISSA))
    abscissa = top(abscissas(few, dense_up_to=LARGEST).value) if dim <= LARGEST else None
    along = stability(path)
    stretched = stretch(path)
    return {
        "dim": dim,
        "accepted_steps": len(path.hops),
        "last_step_ends": round(float(path.hops[-1].t + path.hops[-1].h), 3),
        "growth": top(along.growth),
        "log_norm": top(along.log_norm),
        "norm": top(along.norm),
        "abscissa": abscissa,
        "stretch": top(stretched.factor),
        "exponent": top(stretched.exponent),
    }


def flow_row(path: Trajectory) -> dict[str, float]:
    accurate = solve(path.field, path.y[0], control=BatchCoupled(rtol=1e-6, atol=1e-6, end="clip"))
    flow = walked(path.field, path.y[0], accurate, DOPRI5)
    along = stability(flow)
    lengths = flow.t.diff(dim=1)
    mean = (along.log_norm[:, 1:] + along.log_norm[:, :-1]) / 2 * lengths
    return {
        "accepted_steps": len(flow.hops),
        "growth": top(along.growth),
        "stretch": top(stretch(flow).factor),
        "stretch_of_walk": top(stretch(path).factor),
        "bound_by_log_norm": top(mean.sum(1).exp()),
    }


def error_row(path: Trajectory, z0: State) -> dict[str, float]:
    found = error_growth(path, z0)
    first = found.error[:, :1]
    return {
        "error": top(found.error / first),
        "lipschitz": top(found.lipschitz),
        "step_bound": top(found.step_bound[:, -1:] / first),
        "exponential_bound": top(found.exponential_bound[:, -1:] / first),
        "above_exponential_bound": int((found.error > found.exponential_bound * (1 + 1e-9)).any(1).sum()),
        "above_step_bound": int((found.error > found.step_bound * (1 + 1e-9)).any(1).sum()),
    }


def measured(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    x_adv = attacked(net, x, y)
    right = {
        which: int((predict(net, images, batch=len(x)).argmax(1) == y).sum())
        for which, images in (("natural", x), ("attacked", x_adv))
    }
    net = net.double()
    x, x_adv = x.double(), x_adv.double()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(SEED), dtype=x.dtype)
    x_noise = (x + EPS * (2 * noise - 1)).clamp(0, 1)
    blocks: dict[str, Any] = {}
    for name, part in net.named_modules():
        if not isinstance(part, ODEBlock):
            continue
        paths = {w: trajectory(net, images, block=name) for w, images in (("natural", x), ("attacked", x_adv))}
        row: dict[str, Any] = {which: walk_row(path) for which, path in paths.items()}
        row["of_flow"] = flow_row(paths["natural"].rows(torch.arange(N_FLOW)))
        row["error_of_attack"] = error_row(paths["natural"], paths["attacked"].y[0])
        row["error_of_noise"] = error_row(paths["natural"], trajectory(net, x_noise, block=name).y[0])
        blocks[name] = row
        print(name, json.dumps(row), flush=True)
    return {"right": right, "blocks": blocks}


def skew(W: list[list[float]], gamma: float, sigma: Any) -> Any:
    """y' = σ((A − γI) y) with A = (0, W; −Wᵀ, 0)."""
    w = torch.tensor(W, dtype=torch.float64)
    rows, columns = w.shape
    above = torch.cat([torch.zeros(rows, rows, dtype=w.dtype), w], 1)
    below = torch.cat([-w.T, torch.zeros(columns, columns, dtype=w.dtype)], 1)
    B = torch.cat([above, below]) - gamma * torch.eye(rows + columns, dtype=w.dtype)
    return lambda t, y: sigma(y @ B.T)


def leaky(u: Tensor) -> Tensor:
    return F.leaky_relu(u, 0.01)


def largest(field: Any, y0: list[float], t1: float) -> float:
    """The largest ‖y(t)‖ / ‖y(0)‖ over accepted times at tolerance 1e-9."""
    start = torch.tensor([y0], dtype=torch.float64)
    best, step, y = 1.0, t1 / 200, start
    for _ in range(200):
        y = solve(field, y, t1=step, control=PerSample(rtol=1e-9, atol=1e-11, end="clip")).y1
        assert isinstance(y, Tensor)
        best = max(best, float(y.norm() / start.norm()))
    return round(best, 4)


def counterexamples() -> dict[str, Any]:
    gammas = (0.0, 0.001, 0.01, 0.1)
    found: dict[str, Any] = {
        "LeakyReLU, 1+1, W = 5 pi, y(0) = (0, 1), t in [0, 1]": {
            g: largest(skew([[5 * math.pi]], g, leaky), [0, 1], 1.0) for g in gammas
        },
        "LeakyReLU, 2+1, W = (1, -1), y(0) = (0, 0, 1), t in [0, 1000]": {
            g: largest(skew([[1.0], [-1.0]], g, leaky), [0, 0, 1], 1000.0) for g in gammas
        },
        "tanh, 1+1, W = 1, y(0) = (3, 3), t in [0, 4]": {
            g: largest(skew([[1.0]], g, torch.tanh), [3, 3], 4.0) for g in gammas
        },
    }
    rotation: dict[str, Any] = {}
    for omega in (1.0, 2.0, 3.0, 5.0, 10.0):
        field, start = skew([[omega]], 0.0, lambda u: u), torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        kinds = {
            "dopri5, 0.1, released end": (DOPRI5, RELEASED.control),
            "dopri5, 0.1, clipped end": (DOPRI5, BatchCoupled(rtol=0.1, atol=0.1, end="clip")),
            "euler, 1 step": (EULER, Fixed(steps=1)),
            "rk4, 1 step": (RK4, Fixed(steps=1)),
        }
        row = {}
        for name, (method, control) in kinds.items():
            y1 = solve(field, start, method=method, control=control).y1
            assert isinstance(y1, Tensor)
            row[name] = round(float(y1.norm()), 5)
        rotation[f"omega {omega:g}"] = row
    found["linear, exact growth 1"] = rotation
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help="which; all if none is named")
    chosen = parser.parse_args().nets or list(N)
    torch.set_num_threads(1)
    out = HERE / "stability.json"
    found = json.loads(out.read_text()) if out.exists() else {"nets": {}}
    found |= {
        "command": "OMP_NUM_THREADS=1 python benchmarks/stability.py",
        "data": "digits, first images of the test split, in one batch",
        "n_of_abscissa": N_ABSCISSA,
        "n_of_flow": N_FLOW,
        "threat": f"Linf {EPS}",
        "attack": "PGD, 20 steps, margin, no random start, last iterate, grid frozen",
        "recipe": RECIPE,
        "seed": SEED,
        "versions": {name: version(name) for name in ("verigrad", "torch", "scipy", "scikit-learn")},
        "machine": f"{platform.machine()} processor, {os.cpu_count()} cores, 1 thread",
        "counterexamples": counterexamples(),
    }
    for name in chosen:
        began, data = time.time(), load_data("digits", n=N[name])
        row = measured(net_named(name), data.x, data.y)
        found["nets"][name] = {"n": N[name], "date": date.today().isoformat()} | row
        found["nets"][name]["seconds"] = round(time.time() - began)
        out.write_text(json.dumps(found, indent=1) + "\n")
