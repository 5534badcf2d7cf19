"""torchdiffeq's law of step sizes: the error ratio, the first step, and the next one.

Two published forms differ: torchdiffeq 0.0.1 (which the SONet code pins) and 0.2.5. Times are float64, norms float32
or better. All functions work on a scalar for the whole batch or on one value for each sample, and are differentiable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verigrad.solvers.combine import chain, combine, scaled
from verigrad.solvers.state import Field, State
from verigrad.solvers.step import clock
from verigrad.solvers.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Law:
    """The constants of the step-size rule, and the two places where the published forms differ.

    safety, grow, shrink: h_next = h · min(grow, max(safety · err^(−1/p), shrink)).
    first_by_part: for a state of several parts the first guess is 0.01 · max_i(d0_i / d1_i) (0.0.1) or
        0.01 · max_i d0_i / max_i d1_i (0.2.5).
    heun_exponent: the p of the adaptive Heun method: 5 in 0.0.1, where it is a slip, 2 in 0.2.5.
    """

    safety: float = 0.9
    grow: float = 10.0
    shrink: float = 0.2
    first_by_part: bool
    heun_exponent: int

    def exponent(self, method: Tableau) -> int:
        """The p in err^(−1/p)."""
        return self.heun_exponent if method.name == "heun2" else method.order


TORCHDIFFEQ_0_0_1 = Law(first_by_part=True, heun_exponent=5)
"""`_impl/misc.py`, `_impl/adaptive_heun.py` of torchdiffeq 0.0.1."""

TORCHDIFFEQ_0_2_5 = Law(first_by_part=False, heun_exponent=2)
"""`_impl/misc.py`, `_impl/rk_common.py` of torchdiffeq 0.2.5."""


class Tolerance(Protocol):
    """What the law reads of an adaptive control."""

    @property
    def rtol(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def law(self) -> Law: ...


BLOCK = 65_536
"""Entries that the norms take in one go: so few that temporaries stay in the cache and off the system's allocator."""


def rms(ratio: Callable[..., Tensor], *parts: Tensor, shared: bool) -> Tensor:
    """√ mean ratio(parts)², over the batch (0-d) or over each sample (B,), in float32 or better.

    ratio: works entry by entry on the parts, which are walked in blocks of a few samples.
    """
    batch, entries = len(parts[0]), max(1, parts[0][0].numel())
    rows = max(1, BLOCK // entries)
    if batch <= rows:
        norm = _row_norms(ratio(*parts))
    else:
        norm = torch.cat([_row_norms(ratio(*block)) for block in zip(*(p.split(rows) for p in parts), strict=True)])
    return torch.linalg.vector_norm(norm) / (batch * entries) ** 0.5 if shared else norm / entries**0.5


def _row_norms(value: Tensor) -> Tensor:
    return torch.linalg.vector_norm(_precise(value).reshape(len(value), -1), dim=1)


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def largest(values: list[Tensor]) -> Tensor:
    """The largest of several norms, element by element."""
    return values[0] if len(values) == 1 else torch.stack(values).max(0).values


def error_norm(
    stages: Sequence[State], weights: tuple[float, ...], y: State, y1: State, rule: Tolerance, *, shared: bool
) -> Tensor:
    """err / h = max over parts of RMS(Σ e_j k_j / (atol + rtol · max(|y|, |y1|))), 0-d or (B,)."""
    used = [j for j, e in enumerate(weights) if e != 0.0]
    e = [weights[j] for j in used]

    def ratio(a: Tensor, b: Tensor, *ks: Tensor) -> Tensor:
        scale = _precise(torch.maximum(a.abs(), b.abs())) * rule.rtol + rule.atol
        return chain(None, [_precise(k) for k in ks], e) / scale

    return largest(
        [rms(ratio, y[i], y1[i], *(stages[j][i] for j in used), shared=shared) for i in range(len(y))],
    )


def first_step(
    field: Field, method: Tableau, rule: Tolerance, y: State, k1: State, t: Tensor, *, shared: bool
) -> Tensor:
    """The first step length, float64 on the CPU, 0-d or (B,); costs one evaluation.

    Hairer, Nørsett & Wanner I, II.4, "starting step size", in torchdiffeq's form (`_select_initial_step`):
    h0 = 0.01 d0/d1, one Euler step, d2 = ‖f1 − f0‖/h0, h1 = (0.01/max(d1, d2))^(1/p), min(100 h0, h1).
    """

    def scale(a: Tensor) -> Tensor:
        return _precise(a.abs()) * rule.rtol + rule.atol

    d0 = _host([rms(lambda a: a / scale(a), a, shared=shared) for a in y])
    d1 = _host([rms(lambda a, k: k / scale(a), a, k, shared=shared) for a, k in zip(y, k1, strict=True)])
    h0 = _first_guess(d0, d1, by_part=rule.law.first_by_part)
    f1 = field(clock(t + h0, y[0]), combine(y, [k1], scaled((1.0,), h0)))
    d2 = _host([rms(lambda a, k, f: (f - k) / scale(a), *part, shared=shared) for part in zip(y, k1, f1, strict=True)])
    steepest = torch.maximum(largest(d1), largest(d2) / h0)
    flat = steepest <= 1e-15
    h1 = (0.01 / steepest.where(~flat, torch.ones_like(h0))) ** (1.0 / method.order)
    h1 = h1.where(~flat, (h0 * 1e-3).clamp(min=1e-6))
    return torch.minimum(100 * h0, h1)


def _host(norms: list[Tensor]) -> list[Tensor]:
    """Norms in float64 on the CPU, where step sizes are reckoned."""
    return list(torch.stack(norms).double().cpu().unbind())


def _first_guess(d0: list[Tensor], d1: list[Tensor], *, by_part: bool) -> Tensor:
    """h0 = 0.01 d0/d1, or 1e-6 where either is below 1e-5."""
    small = (largest(d0) < 1e-5) | (largest(d1) < 1e-5)
    one = torch.ones_like(d0[0])
    if by_part:
        quotient = largest([a / b.where(~small, one) for a, b in zip(d0, d1, strict=True)])
    else:
        quotient = largest(d0) / largest(d1).where(~small, one)
    return (0.01 * quotient).where(~small, 1e-6 * one)


def next_step(h: Tensor, ratio: Tensor, law: Law, method: Tableau) -> Tensor:
    """h · min(grow, max(safety · err^(−1/p), shrink)), where shrink is 1 if err < 1, and h · grow if err = 0."""
    zero = ratio == 0
    wish = law.safety * ratio.where(~zero, torch.ones_like(ratio)) ** (-1.0 / law.exponent(method))
    floor = torch.where(ratio < 1, torch.ones_like(h), torch.full_like(h, law.shrink))
    factor = torch.clamp(torch.maximum(wish, floor), max=law.grow)
    return h * factor.where(~zero, torch.full_like(h, law.grow))
