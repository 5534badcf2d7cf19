"""Threats: a norm ball around the input, cut by the valid box.

Every method takes batches (B, ...) and works sample by sample. Projections are onto the *intersection* of ball and box,
exactly; clipping after a projection onto the ball alone would not give the nearest point (except for Linf).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator

# A float32 pixel in [0, 1] cannot be placed more finely than this: one unit in the last place below 1.
ROUNDING = 2.0**-23


def _flat(t: Tensor) -> Tensor:
    return t.flatten(1)


def _column(t: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1)."""
    return t.reshape(-1, *[1] * (like.dim() - 1))


def _top(gradient: Tensor) -> Tensor:
    """(B,) the largest entry, kept above zero. Lengths are taken in its units: the squares of a saturated gradient
    would underflow to zero."""
    return _flat(gradient).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)


def _to_unit_length(gradient: Tensor) -> Tensor:
    """Each sample divided by its L2 norm; a zero gradient has no direction and stays zero."""
    scaled = gradient / _column(_top(gradient), gradient)
    return scaled / _column(_flat(scaled).norm(dim=1), gradient).clamp(min=torch.finfo(gradient.dtype).tiny)


@dataclass(frozen=True, kw_only=True)
class Threat(ABC):
    """What an attacker may do to an input. `bounds` is the valid box, the same for each pixel."""

    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    @abstractmethod
    def size(self) -> float:
        """The radius of the ball in its own norm."""

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The point of ball ∩ box nearest to x_adv in the Euclidean norm."""

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """argmax ⟨gradient, v⟩ over ‖v‖ ≤ 1 in this norm (L0: the pixel directions, unit length in L2)."""

    @abstractmethod
    def sample(self, x: Tensor, generator: SampleGenerator) -> Tensor:
        """A random point of ball ∩ box."""

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(B,) float64, in this threat's norm."""

    @abstractmethod
    def dual_norm(self, gradient: Tensor) -> Tensor:
        """(B,) max ⟨gradient, v⟩ over ‖v‖ ≤ 1: the first-order gain for each unit of distance."""

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BadInput(f"The 'bounds' of a threat must be two finite numbers, low < high. Got {self.bounds!r}.")

    def reach(self, x: Tensor) -> float:
        """How far a typical pixel of x (B, ...) can move, in pixel units, if the ball is spread over all of them."""
        return self.size / math.sqrt(math.prod(x.shape[1:]))

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(B,) bool: finite, inside the box and inside the ball, to one rounding of a float32 pixel."""
        low, high = self.bounds
        # NaN fails both comparisons, and no infinity is inside finite bounds.
        inside = (_flat(x_adv) >= low).all(1) & (_flat(x_adv) <= high).all(1)
        return inside & (self.distance(x_adv, x) <= self.size + self._slack(x))

    def _slack(self, x: Tensor) -> float:
        """What rounding a projected point to float32 may add to its distance."""
        return ROUNDING * max(1.0, *map(abs, self.bounds))

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}:{self.size!r}"


def _check_eps(name: str, eps: float) -> None:
    if not (isinstance(eps, int | float) and math.isfinite(eps) and eps >= 0):
        hint = " Did you mean 1/255?" if isinstance(eps, int | float) and eps < 0 else ""
        raise BadInput(f"The 'eps' of {name} must be a finite number in [0, inf). Got {eps!r}.{hint}")


@dataclass(frozen=True, kw_only=True)
class Linf(Threat):
    """Each pixel may move by at most eps, in units of the valid box (8/255 for images in [0, 1])."""

    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps("Linf", self.eps)

    @property
    def size(self) -> float:
        return self.eps

    def reach(self, x: Tensor) -> float:
        del x  # every pixel can move as far
        return self.eps

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        low, high = self.bounds
        return torch.clamp(x_adv, (x - self.eps).clamp(min=low), (x + self.eps).clamp(max=high))

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def sample(self, x: Tensor, generator: SampleGenerator) -> Tensor:
        noise = generator.uniform(*x.shape[1:], low=-self.eps, high=self.eps, dtype=x.dtype)
        return self.project(x + noise, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _flat(x_adv.double() - x.double()).abs().amax(1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        return _flat(gradient).abs().sum(1)


@dataclass(frozen=True, kw_only=True)
class L2(Threat):
    """The whole perturbation has Euclidean length at most eps."""

    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps("L2", self.eps)

    @property
    def size(self) -> float:
        return self.eps

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """d_i(s) = sign(g_i)·min(s·|g_i|, room_i) with the one s in [0, 1] that gives ‖d‖ = eps (KKT conditions).

        s solves Σ_stuck room² + s² · Σ_free g² = eps², where a pixel is stuck if s·|g_i| > room_i. Starting with all
        free, s can only grow and the free set only shrink, so that the exact s is reached in finitely many rounds
        (Michelot 1986 has the same argument for the simplex); in practice in two to six.
        """
        low, high = self.bounds
        start = _flat(x).double()
        g = _flat(x_adv).double() - start
        room = torch.where(g > 0, high - start, start - low).clamp(min=0)
        size = g.abs()
        size2, room2 = size.square(), room.square()
        free, shrunk = torch.ones_like(size), torch.zeros_like(size)
        s = torch.zeros_like(size[:, :1])
        while not torch.equal(free, shrunk):
            shrunk = free
            rest = (self.eps**2 - torch.linalg.vecdot(room2, 1 - free)).clamp(min=0)
            moving = torch.linalg.vecdot(size2, free).clamp(min=1e-300)
            s = torch.maximum(s, (rest / moving).sqrt().clamp(max=1)[:, None])
            free = (s * size <= room).double()
        d = g.sign() * torch.minimum(s * size, room)
        # Rounding to the input's type may leave the box by one unit in the last place: cut it there.
        return (x.double() + d.reshape(x.shape)).to(x.dtype).clamp(low, high)

    def steepest(self, gradient: Tensor) -> Tensor:
        return _to_unit_length(gradient)

    def sample(self, x: Tensor, generator: SampleGenerator) -> Tensor:
        """A uniform point of the ball (direction normal, radius eps·u^(1/N)), then projected onto ball ∩ box."""
        direction = self.steepest(generator.normal(*x.shape[1:], dtype=x.dtype))
        radius = self.eps * generator.uniform(1, dtype=torch.float64).squeeze(1) ** (1 / math.prod(x.shape[1:]))
        return self.project(x + _column(radius.to(x.dtype), x) * direction, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _flat(x_adv.double() - x.double()).norm(dim=1)

    def dual_norm(self, gradient: Tensor) -> Tensor:
        top = _top(gradient)
        return (_flat(gradient) / top[:, None]).norm(dim=1) * top

    def _slack(self, x: Tensor) -> float:
        return super()._slack(x) * max(1.0, self.eps, math.sqrt(math.prod(x.shape[1:])) / 2)


@dataclass(frozen=True, kw_only=True)
class L0(Threat):
    """At most `pixels` pixels may change, each to any valid value in all its channels."""

    pixels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.pixels, int) and self.pixels >= 0):
            raise BadInput(f"The 'pixels' of L0 must be a whole number from 0 up. Got {self.pixels!r}.")

    @property
    def size(self) -> float:
        return self.pixels  # a whole number, so that it is written as one

    def reach(self, x: Tensor) -> float:
        low, high = self.bounds
        return (high - low) * math.sqrt(min(self.pixels / math.prod(x.shape[2:]), 1.0))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Keeps the pixels whose change spares most: ‖x - x_adv‖² less ‖box(x_adv) - x_adv‖², pixel by pixel."""
        boxed = x_adv.clamp(*self.bounds)
        wanted = x_adv.double()
        spared = ((x - wanted).square() - (boxed - wanted).square()).sum(1, keepdim=True)
        keep = min(self.pixels, _flat(spared).shape[1])
        chosen = torch.zeros_like(_flat(spared)).scatter(1, _flat(spared).topk(keep, dim=1).indices, 1.0)
        return torch.where(chosen.reshape(spared.shape).bool(), boxed, x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The `pixels` pixels with the largest gradient, each moved along its own gradient, to unit length in L2.

        Unlike the other threats', this step does not attain `dual_norm`: L0 bounds no length, so no steepest unit step
        exists. It attains ‖kept gradient‖₂ instead.
        """
        strength = gradient.square().sum(1, keepdim=True)
        keep = min(self.pixels, _flat(strength).shape[1])
        chosen = torch.zeros_like(_flat(strength)).scatter(1, _flat(strength).topk(keep, dim=1).indices, 1.0)
        return _to_unit_length(gradient * chosen.reshape(strength.shape))

    def sample(self, x: Tensor, generator: SampleGenerator) -> Tensor:
        """`pixels` random pixels, each set to a random valid value."""
        low, high = self.bounds
        places = _flat(generator.uniform(1, *x.shape[2:])).topk(min(self.pixels, math.prod(x.shape[2:])), dim=1).indices
        chosen = torch.zeros_like(_flat(x[:, :1])).scatter(1, places, 1.0).reshape(x[:, :1].shape).bool()
        return torch.where(chosen, generator.uniform(*x.shape[1:], low=low, high=high, dtype=x.dtype), x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        return _flat((x_adv != x).any(1)).sum(1).double()

    def dual_norm(self, gradient: Tensor) -> Tensor:
        """Sum of the `pixels` largest per-pixel l1 norms: the gain when these pixels move by one in each channel."""
        strength = _flat(gradient.abs().sum(1))
        return strength.topk(min(self.pixels, strength.shape[1]), dim=1).values.sum(1)

    def _slack(self, x: Tensor) -> float:
        return 0.0


def parse_threat(text: str) -> Threat:
    """`linf:0.1`, `linf:8/255`, `l2:0.5` or `l0:10`.

    Raises:
        BadInput: for anything else.
    """
    kind, _, amount = text.strip().lower().partition(":")
    top, slash, bottom = amount.partition("/")
    try:
        value = float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if kind == "linf" and math.isfinite(value):
        return Linf(eps=value)
    if kind == "l2" and math.isfinite(value):
        return L2(eps=value)
    if kind == "l0" and value.is_integer():
        return L0(pixels=int(value))
    raise BadInput(f"The threat must read linf:EPS, l2:EPS or l0:PIXELS. Got {text!r}. For example linf:8/255.")
