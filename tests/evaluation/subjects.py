"""Small classifiers and attacks that lie, for the rooms that must not believe them."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from controls import Linear, linear_problem
from torch import Tensor, nn

from verigrad.attacks.base import AttackResult
from verigrad.attacks.pgd import PGD
from verigrad.core.threat import Linf
from verigrad.evaluation.clean import record_clean
from verigrad.evaluation.run import Subject
from verigrad.ledger.store import Ledger


class Double(nn.Module):
    """A classifier that computes in float64, so that no sum's order shows in a float32 pixel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double())


def subject(n: int = 24, *, batch: int = 7, eps: float = 0.05, wrap=None, coupled: bool = False) -> Subject:
    """A linear problem of which about three quarters are rightly classified, and about half of those within reach."""
    x, y, w = linear_problem(n)
    scores = x.double().flatten(1) @ w.double()
    model: nn.Module = Double(Linear(w, float(scores.quantile(0.75)) + 1e-3))
    return Subject(wrap(model) if wrap else model, x, y, Linf(eps=eps), batch, coupled)


def opened(path: Path, of: Subject) -> Ledger:
    ledger = Ledger.create_or_resume(path, {"batch": of.batch, "threat": str(of.threat)})
    record_clean(of, ledger)
    return ledger


def right(ledger: Ledger) -> list[int]:
    return [row.sample for row in ledger.samples() if row.prediction == row.label]


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """An attack that says that it broke everything. `how` says what it really does."""

    how: str

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat, *, generator) -> AttackResult:
        n = len(x)
        counts = torch.ones(n, dtype=torch.int64)
        status = torch.zeros(n, dtype=torch.int64)
        if self.how == "far":  # outside the ball: every image is broken there
            x_adv = far(model, x)
        elif self.how == "bright":  # inside the ball, outside the box
            x_adv = x + 0.9 * threat.size
        elif self.how == "nan":
            x_adv = torch.full_like(x, torch.nan)
        elif self.how == "infinite":
            x_adv = torch.full_like(x, torch.inf)
        elif self.how == "in_place":  # what it was given is moved too, so that nothing seems far
            x.copy_(far(model, x))
            y.fill_(0)
            x_adv = x
        elif self.how == "mates":  # every second image leaves the ball to help its neighbour
            x_adv = x.clone()
            x_adv[::2] = far(model, x)[::2]
        elif self.how == "dirty":
            model.train()
            for weight in model.parameters():
                weight.requires_grad_(True)
            x_adv = x.clone()
        elif self.how == "short":
            x_adv = x[:-1]
        elif self.how == "code":
            x_adv, status = x.clone(), status + 9
        else:
            x_adv = x.clone()
        return AttackResult(x_adv, torch.ones(n, dtype=torch.bool), torch.zeros(n), counts, counts, status)


def far(model: nn.Module, x: Tensor) -> Tensor:
    """Every pixel at the end of the box that the weight likes."""
    (w,) = model.parameters()
    return (w > 0).float().reshape(1, *x.shape[1:]).expand_as(x).clone().contiguous()


@dataclass(frozen=True, kw_only=True)
class Slow:
    """PGD that takes its time, so that a kill falls into the middle of it."""

    seconds: float = 0.01
    steps: int = 3

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat, *, generator) -> AttackResult:
        time.sleep(self.seconds)
        return PGD(steps=self.steps, restarts=2)(model, x, y, threat, generator=generator)
