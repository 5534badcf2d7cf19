"""What health checks look at, what they report, and how they judge a number."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from verigrad.auditing.foreign import NOT_FOREIGN, Foreign
from verigrad.core.scores import Score
from verigrad.core.threat import Threat
from verigrad.ledger.statistics import wilson

Severity = Literal["invalid", "masking", "note"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding. `value` is None where the check does not apply; `detail` is a sentence for people."""

    name: str
    label: str
    value: float | None
    limit: str
    fired: bool
    severity: Severity
    detail: str

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What the checks look at: whole batches of the data, so that a batch-coupled model is seen as it is used.

    `rows` (R,) are the correctly classified samples of x (B, C, H, W); rates and medians are over them. `foreign` is
    what is known of its calls of torchdiffeq, if it is written on that.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    rows: Tensor
    threat: Threat
    seed: int
    foreign: Foreign = NOT_FOREIGN

    def gradient(self, score: Score, *, model: nn.Module | None = None, x: Tensor | None = None) -> Tensor:
        """(R, N) float64: ∂ Σ score / ∂x at the rows, the batch differentiated as one."""
        at = (self.x if x is None else x).detach().clone().requires_grad_(True)
        value = score((model or self.model)(at), self.y).sum()
        if not value.requires_grad:
            return torch.zeros(len(self.rows), at[0].numel(), dtype=torch.float64)
        (gradient,) = torch.autograd.grad(value, at, allow_unused=True)
        gradient = torch.zeros_like(at) if gradient is None else gradient
        return gradient[self.rows].flatten(1).double().cpu()

    def scores(self, score: Score, x: Tensor) -> Tensor:
        """(R,) float64."""
        with torch.no_grad():
            return score(self.model(x), self.y)[self.rows].double().cpu()


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """(R,) cosine; 0 where either is zero or not finite. Rows are scaled first, so that tiny gradients count."""
    a = a / a.abs().amax(1, keepdim=True).clamp(min=1e-300)
    b = b / b.abs().amax(1, keepdim=True).clamp(min=1e-300)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)
    return torch.nan_to_num(cosine, nan=0.0)


def median(values: Tensor) -> float:
    return float(values.median()) if len(values) else 0.0


def share_check(name: str, label: str, hits: Tensor, *, limit: float, severity: Severity, detail: str) -> Check:
    k, n = int(hits.sum()), len(hits)
    low, _ = wilson(k, n)
    share = k / n if n else 0.0
    return Check(
        name=name,
        label=label,
        value=share,
        limit=f"lower 95 % limit of the share at most {limit:.0%}",
        fired=low > limit,
        severity=severity,
        detail=detail.format(k=k, n=n),
    )


def not_applicable(name: str, label: str, value: float | None, limit: str, *, why: str = "") -> Check:
    detail = f"Does not apply: {why}" if why else "Does not apply."
    return Check(name=name, label=label, value=value, limit=limit, fired=False, severity="note", detail=detail)


def unseen(name: str) -> Check:
    """What a check says of a model that is right on nothing that it looks at."""
    return Check(
        name=name,
        label=name.replace("_", " "),
        value=None,
        limit="none",
        fired=False,
        severity="note",
        detail="Does not apply: none of the samples that the checks look at is classified rightly.",
    )


def measured(check: Check) -> Check:
    """NaN is never a value: where gradients are not finite, some checks have nothing to measure."""
    if check.value is None or math.isfinite(check.value):
        return check
    return replace(check, value=None, detail="Could not be measured: it met a logit or a gradient that is not finite.")
