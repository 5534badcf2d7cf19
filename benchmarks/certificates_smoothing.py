"""What randomised smoothing saves by stopping early, and at what rate it draws, classifies and counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from verigrad.certificates import smoothing
from verigrad.certificates.noisy_votes import BLOCK, NoisyVotes
from verigrad.certificates.smoothing import Smoothing
from verigrad.core.seeds import seeded

SIGMA, RADII = 0.25, (0.0, 0.25, 0.5)


class Kept(NoisyVotes):
    """Votes that were drawn before: of each stream, counts (blocks, K + 1) by its seed."""

    known: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, model: nn.Module, x: Tensor, *, seeds: Sequence[int], **noise: Any) -> None:
        self.counts, self.at = [self.known[seed] for seed in seeds], [0] * len(seeds)

    def more(self, rows: Sequence[int], draws: int) -> Tensor:
        blocks = draws // BLOCK
        assert blocks * BLOCK == draws
        found = torch.stack([self.counts[row][self.at[row] : self.at[row] + blocks].sum(0) for row in rows])
        for row in rows:
            self.at[row] += blocks
        return found


@dataclass(frozen=True)
class Saved:
    """A test against the reference: mean forwards an image, of them the reference's share, and what came out."""

    radii: tuple[float, ...]
    test: str
    forwards: float
    fewer: float
    median: float
    certified: tuple[float, ...]
    differ: tuple[int, ...]


def votes_of_all(model: nn.Module, x: Tensor, n0: int, n: int) -> None:
    """Draws the streams that the certificate would draw, and keeps their counts, block by block, in `Kept`."""
    for phase, draws in enumerate((n0, n)):
        seeds = streams(len(x)).bits(2)[:, phase].tolist()
        votes = NoisyVotes(model, x, sigma=SIGMA, seeds=seeds, batch=1000, dtype="model")
        told = track(range(draws // BLOCK), description=f"{draws} votes on each of {len(x)} images")
        counts = torch.stack([votes.more(range(len(x)), BLOCK) for _ in told])
        Kept.known |= {seed: counts[:, row].contiguous() for row, seed in enumerate(seeds)}


def savings(model: nn.Module, x: Tensor, y: Tensor, n: int) -> list[Saved]:
    votes_of_all(model, x, 100, n)
    smoothing.NoisyVotes = Kept

    def run(test: str, radii: tuple[float, ...]) -> Any:
        return Smoothing(sigma=SIGMA, test=test, radii=radii, n=n)(model, x, y, generator=streams(len(x)))  # type: ignore[arg-type]

    def answers(found: Any, radius: float) -> Tensor:
        return (found.radius > 0) & (found.radius >= radius)

    reference = run("fixed", ())
    rows = []
    for radii in ((), *((radius,) for radius in RADII), RADII):
        for test in ("fixed", "curtailed", "staged", "betting") if radii else ("fixed", "curtailed"):
            found = run(test, radii)
            asked = radii or RADII
            differ = tuple(int((answers(found, r) != answers(reference, r)).sum()) for r in asked)
            if not radii:
                differ = (
                    int((found.radius != reference.radius).sum()),
                    int((found.predicted != reference.predicted).sum()),
                )
            rows.append(
                Saved(
                    radii=radii,
                    test=test,
                    forwards=float(found.forwards.double().mean()),
                    fewer=float(reference.forwards.sum() / found.forwards.sum()),
                    median=float(found.forwards.double().median()),
                    certified=tuple(float(answers(found, r).double().mean()) for r in asked),
                    differ=differ,
                )
            )
    smoothing.NoisyVotes = NoisyVotes
    return rows


def streams(n: int) -> Any:
    return seeded(0, "benchmark", range(n))


@dataclass(frozen=True)
class Rate:
    """Noisy images a CPU second, and rates over that of the bare model."""

    model: str
    images: str
    batch: int
    bare: float
    ours: float
    low: float
    high: float
    one_by_one: float
    bf16: float


def rate(name: str, model: nn.Module, shape: tuple[int, int, int], batch: int, rounds: int) -> Rate:
    torch.manual_seed(0)
    x, ready, n = torch.rand(20, *shape), torch.rand(batch, *shape), 2000 // batch * batch

    def bare() -> None:
        with torch.no_grad():
            for _ in range(n // batch):
                model(ready)

    def ours(dtype: Any = "model") -> Callable[[], object]:
        votes = NoisyVotes(model, x, sigma=SIGMA, seeds=range(20), batch=batch, dtype=dtype)
        return lambda: votes.more(range(20), n // 20)

    def one_by_one() -> None:
        counts = np.zeros(10, dtype=int)
        with torch.no_grad():
            for _ in range(n // batch):
                copies = x[:1].repeat(batch, 1, 1, 1)
                for vote in model(copies + torch.randn_like(copies) * SIGMA).argmax(1).numpy():
                    counts[vote] += 1

    works = (bare, ours(), one_by_one, ours("bf16"))
    for work in works:
        work()
    times = np.array([[seconds(work) for work in works] for _ in range(rounds)])
    own, loop = times[:, 0] / times[:, 1], times[:, 0] / times[:, 2]
    return Rate(
        model=name,
        images="×".join(map(str, shape)),
        batch=batch,
        bare=n / statistics.median(times[:, 0]),
        ours=float(np.median(own)),
        low=float(own.min()),
        high=float(own.max()),
        one_by_one=float(np.median(loop)),
        bf16=float(np.median(times[:, 1] / times[:, 3])),
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
