"""What the constraint of successive approximations costs, its layer problem by two solvers, and what bfloat16 gains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from training_steps import NATURAL, Trial, beside, seconds, step_of

from verigrad.models.networks.resnet import ResNet18
from verigrad.training import layer_sdp
from verigrad.training.spectral import project, unconstrained

EVERY = 100
STABLE = Trial(name="", kind="algorithm", spec=f"successive-approximations:every={EVERY}")


def plain_resnet18(channels: int) -> nn.Module:
    """ResNet18 without batch norm."""
    model = ResNet18(channels)
    for module in model.modules():
        for name, part in module.named_children():
            if isinstance(part, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return model


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "ResNet18, batch norm folded": ResNet18,
    "ResNet18 without batch norm": plain_resnet18,
}


@dataclass(frozen=True)
class Stable:
    """Successive approximations beside a natural step of the same network: a step between sure ones, a sure one (each
    `EVERY`-th) in which nearly all kernels are outside, and the mean of all.
    """

    name: str
    usual: float
    sure: float
    mean: float
    rounds: int
    batch: int
    natural_seconds: float


def stable(only: str, batch: int, rounds: int, channels: int = 64) -> Iterator[Stable]:
    for name, network in NETWORKS.items():
        if only not in name:
            continue
        make = partial(network, channels)
        natural, _ = step_of(NATURAL, batch, make)
        step, state = step_of(STABLE, batch, make)
        step(), natural()
        usual, bare = beside(step, natural, rounds)
        state.step = EVERY
        sure, more = beside(step, natural, 1)
        mean = ((EVERY - 1) * statistics.median(usual) + sure[0]) / EVERY
        costs = statistics.median(usual), sure[0], mean
        yield Stable(name, *costs, rounds, batch, statistics.median(bare + more))


@dataclass(frozen=True)
class LayerProblem:
    """max ⟨G, θ⟩ − α‖θ‖² − β‖θ − θ'‖² under ‖θ‖₂ ≤ 1, in float32. tolerance: of SCS; difference: the largest between
    the two answers.
    """

    size: int
    tolerance: float
    norm: float
    clip_seconds: float
    scs_seconds: float
    ratio: float
    difference: float


def layer_problem(size: int, tolerance: float, clips: int, programmes: int) -> LayerProblem:
    """A matrix of norm 2 before the constraint, where many singular values are above 1. SCS's own tolerance is 1e-4."""
    draw = torch.Generator().manual_seed(size)
    matrix, before = (torch.randn(size, size, generator=draw) / size**0.5 for _ in range(2))
    alpha, beta = 0.1, 0.4
    pull = (matrix - 2 * beta * before) * (2 * (alpha + beta))

    def clip() -> Tensor:
        return project(unconstrained(pull, before, alpha, beta))

    def programme() -> Tensor:
        return layer_sdp.solve(pull, before, alpha, beta, tolerance=tolerance)

    answers: list[Tensor] = [clip()]
    clipped = statistics.median(seconds(clip) for _ in range(clips))
    solved = statistics.median(seconds(lambda: answers.append(programme())) for _ in range(programmes))
    norm = float(torch.linalg.matrix_norm(unconstrained(pull, before, alpha, beta), 2))
    return LayerProblem(
        size, tolerance, norm, clipped, solved, solved / clipped, float((answers[0] - answers[-1]).abs().max())
    )


@dataclass(frozen=True)
class Low:
    """A method in bfloat16: how many times as fast as itself in float32, in CPU time."""

    name: str
    gain: float
    low: float
    high: float
    rounds: int


def bfloat16(trials: list[Trial], batch: int, rounds: int) -> Iterator[Low]:
    for trial in trials:
        whole, _ = step_of(trial, batch)
        half, _ = step_of(trial, batch, low=True)
        whole(), half()
        ratios, _ = beside(whole, half, rounds)
        yield Low(trial.name, statistics.median(ratios), min(ratios), max(ratios), rounds)


def today() -> str:
    return time.strftime("%Y-%m-%d")
