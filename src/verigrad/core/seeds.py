"""Randomness that depends on (run seed, unit, sample id) and on nothing else.

A `SampleGenerator` holds one 64-bit seed for each sample and a counter. Draws are a counter-based hash (the SplitMix64
finaliser of Steele, Lea & Flood 2014), computed for the whole batch at once: a sample gets the same numbers whatever
its batch-mates, its place in the batch, the batch size or the device. The global generator is never touched.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Constants of SplitMix64, written as signed 64-bit integers because torch has no unsigned multiplication.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable: `derive_seed(run_seed, unit, sample_id)`."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded(run_seed: int, unit: str, sample_ids: Sequence[int], device: torch.device | str = "cpu") -> SampleGenerator:
    """The generator of one unit: one seed for each sample id, in the order given."""
    return SampleGenerator(
        torch.tensor([derive_seed(run_seed, unit, int(i)) for i in sample_ids], dtype=torch.int64, device=device)
    )


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _wrapped(number: int) -> int:
    """A Python integer modulo 2⁶⁴, as the signed 64-bit integer that torch can add."""
    return (number + 2**63) % 2**64 - 2**63


class SampleGenerator:
    """One stream of random numbers for each sample of a batch.

    Args:
        seeds: (B,) int64, one for each sample.
        counter: how many draws were taken; equal generators with equal counters give equal numbers.
    """

    def __init__(self, seeds: Tensor, counter: int = 0) -> None:
        self.seeds = seeds
        self.counter = counter

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: Tensor | slice) -> SampleGenerator:
        """The streams of some of the samples, at the same place."""
        return SampleGenerator(self.seeds[rows], self.counter)

    def bits(self, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform over all 64-bit integers. Takes one draw."""
        count = math.prod(shape)
        # The draw's number is hashed into the seed first, so that two draws never share a position.
        key = _mix(self.seeds + _wrapped((self.counter + 1) * GOLDEN))
        self.counter += 1
        place = torch.arange(1, count + 1, dtype=torch.int64, device=self.seeds.device) * GOLDEN
        return _mix(key[:, None] + place).reshape(len(self), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, *shape) uniform on [low, high); `high` itself only where rounding makes it. Takes one draw."""
        unit = _shift(self.bits(*shape), 11).to(torch.float64) * 2.0**-53
        # Rounding 1 - 2⁻⁵³ to a shorter type would give 1.0: the largest value below one is kept instead.
        unit = unit.to(dtype).clamp(max=1.0 - torch.finfo(dtype).eps / 2)
        return low + (high - low) * unit

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, *shape) standard normal by Box and Muller's transform. Takes two draws."""
        radius = self.uniform(*shape, dtype=torch.float64)
        angle = self.uniform(*shape, dtype=torch.float64)
        return ((-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)).to(dtype)

    def signs(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, *shape) of -1 and 1 with equal chance (Rademacher). Takes one draw."""
        return (_shift(self.bits(*shape), 63) * 2 - 1).to(dtype)

    def integers(self, *shape: int, high: int) -> Tensor:
        """(B, *shape) int64 uniform on [0, high). Takes one draw."""
        return (self.uniform(*shape, dtype=torch.float64) * high).to(torch.int64).clamp(max=high - 1)
