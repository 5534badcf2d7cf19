"""What certificates cost: forwards of randomised smoothing, their rate, extreme value fits, bounds from gradients.

*Forwards.* One convolution and a linear layer, trained on the digits (8×8) under noise of sigma 0.25; 100 test images.
The reference is the protocol of Cohen et al. 2019 at alpha 0.001: 100 noisy copies to choose the class, 100,000 to
certify it. The votes of all 100,100 copies of each image are drawn once, by the certificate's own streams, and every
test is the certificate itself, given these votes again: what differs between rows is only when it stops asking.

*Rate.* Noisy images a second, drawn, classified and counted by the certificate, over the rate of the bare model on
images that lie ready. The two run in turn, on one thread, in process CPU seconds, and the figure is the median of the
rounds. `one by one` is the loop as it is often written: noise in a tensor of its own, votes counted in Python. bf16 is
autocast.

*Fits* and *bounds* are process CPU seconds too; a gradient is one forward and one backward pass of 1,000 random images
of 1×28×28 by a small conv net.

*auto_LiRPA*, where it can be imported, verifies the same images as the certificate `interval`: the share of 32 digits
that each proves at three radii, and the time of one bound. It is no dependency: point PYTHONPATH at it.

    python benchmarks/certificates.py            writes certificates.json and certificates.md beside this file
    python benchmarks/certificates.py --only savings    or rates, timed, peers; the rest stays as it is in the JSON
    python benchmarks/certificates.py --quick    5 images, 2,000 copies, one round, nothing written
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from torch import Tensor, nn

from verigrad.certificates import smoothing
from verigrad.certificates.extremes import fit, supremum
from verigrad.certificates.folding import fold
from verigrad.certificates.gap import look
from verigrad.certificates.interval import Box, margins, propagate
from verigrad.certificates.lipschitz import LBound
from verigrad.certificates.modulus import OmegaBound
from verigrad.certificates.noisy_votes import BLOCK, NoisyVotes
from verigrad.certificates.smoothing import Smoothing
from verigrad.core.seeds import seeded
from verigrad.models.networks.small import SmallConvNet

HERE = Path(__file__).resolve().parent
SIGMA, RADII = 0.25, (0.0, 0.25, 0.5)
SHARES_AT = (0.005, 0.01, 0.02)


def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A small conv net trained on 1,200 digits under noise, and the other images in an order of their own."""
    flat, target = load_digits(return_X_y=True)
    torch.manual_seed(0)
    order = torch.randperm(len(flat))
    x = torch.tensor(flat, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16
    y = torch.tensor(target)[order]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(20):
        for rows in torch.randperm(1200).split(50):
            adam.zero_grad()
            F.cross_entropy(model(x[rows] + SIGMA * torch.randn_like(x[rows])), y[rows]).backward()
            adam.step()
    return model.eval(), x[1200:], y[1200:]


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


def streams(n: int) -> Any:
    return seeded(0, "benchmark", range(n))


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


@dataclass(frozen=True)
class Timed:
    what: str
    seconds: float
    units: float
    unit: str


def fits(rounds: int) -> list[Timed]:
    """31 fits of 100 maxima each: one at a time, in one call, and each with its test and intervals by bootstrap."""
    maxima = np.random.default_rng(0).gumbel(size=(31, 100))
    works = {
        "31 fits, one after another": lambda: [fit(row[None]) for row in maxima],
        "31 fits in one call": lambda: fit(maxima),
        "31 fits, each with 99 bootstrap fits": lambda: [supremum(row, seed=0) for row in maxima],
    }
    rows = []
    for what, work in works.items():
        took = statistics.median(seconds(work) for _ in range(rounds))
        rows.append(Timed(what, took, 31 / took, "fits a second"))
    return rows


def bounds(rounds: int) -> list[Timed]:
    """L- and omega-bound of 1,000 images over the cost of one gradient of all of them."""
    torch.manual_seed(0)
    model, x = SmallConvNet(channels=8).eval(), torch.rand(1000, 1, 28, 28)
    y = model(x).argmax(1)

    def gradient() -> None:
        for rows in torch.arange(1000).split(100):
            look(model, x[rows], y[rows], "probabilities")

    works = {
        "one gradient": gradient,
        "l-bound, images": LBound(sampler="images"),
        "l-bound, ascent": LBound(),
        "omega-bound, gradient": OmegaBound(sampler="gradient"),
        "omega-bound, ascent": OmegaBound(),
    }
    for weight in model.parameters():
        weight.requires_grad_(False)
    rows, one = [], 0.0
    for what, work in works.items():
        run = work if what == "one gradient" else _called(work, model, x, y)
        took = statistics.median(seconds(run) for _ in range(rounds))
        one = one or took
        rows.append(Timed(what, took, took / one, "gradients"))
    return rows


def _called(certificate: Any, model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], object]:
    return lambda: certificate(model, x, y, generator=streams(len(x)))


@dataclass(frozen=True)
class Peer:
    """Shares of images that a tool proves at `SHARES_AT`, and CPU seconds an image for one bound."""

    tool: str
    shares: tuple[float, ...]
    seconds: float


def peers(model: nn.Module, x: Tensor, y: Tensor) -> list[Peer]:
    """Our interval bounds beside auto_LiRPA's, under Linf, without the box of valid images."""
    found = []
    with torch.no_grad():
        parts = fold(model, x[:1])

        def ours(eps: float) -> Tensor:
            boxes = propagate(parts, Box(x.double() - eps, x.double() + eps), {len(parts) - 1, *parts[-1].inputs})
            return margins(parts, boxes, y).amin(1)

        found.append(_peer("interval (ours)", ours, len(x)))
    try:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm  # type: ignore[import-not-found]
    except ImportError:
        return found
    bounded = BoundedModule(model, x, device="cpu", verbose=False)
    other = torch.stack([torch.tensor([k for k in range(10) if k != label]) for label in y.tolist()])
    rows = torch.eye(10)[y][:, None] - torch.eye(10)[other]

    for method in ("IBP", "CROWN-IBP", "CROWN"):

        def theirs(eps: float, method: str = method) -> Tensor:
            ball = PerturbationLpNorm(norm=float("inf"), eps=eps)
            low, _ = bounded.compute_bounds(x=(BoundedTensor(x, ball),), C=rows, method=method, bound_upper=False)
            return low.detach().amin(1)

        found.append(_peer(f"auto_LiRPA, {method}", theirs, len(x)))
    return found


def _peer(tool: str, lowest: Callable[[float], Tensor], n: int) -> Peer:
    shares = tuple(float((lowest(eps) > 0).double().mean()) for eps in SHARES_AT)
    return Peer(tool, shares, seconds(lambda: lowest(SHARES_AT[0])) / n)


def page(found: dict[str, Any]) -> str:
    machine = found["machine"]
    n, images = found["n"], found["images"]
    lines = [
        "# The cost of certificates",
        "",
        "Written by `python benchmarks/certificates.py`, which says what is measured. One thread of a "
        f"{machine['cores']}-core {machine['kind']} CPU, torch {machine['torch']}, {machine['date']}.",
        "",
        f"## Forwards of smoothing, {images} images of the digits, sigma {SIGMA}, n = {n:,}",
        "",
        "| radii | test | forwards an image (median) | times fewer | certified | answers that differ |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["savings"]:
        radii = ", ".join(f"{r:g}" for r in row["radii"]) or "the largest"
        certified = ", ".join(f"{share:.2f}" for share in row["certified"])
        differ = ", ".join(map(str, row["differ"]))
        forwards = f"{row['forwards']:,.0f} ({row['median']:,.0f})"
        lines.append(f"| {radii} | {row['test']} | {forwards} | {row['fewer']:.1f} | {certified} | {differ} |")
    lines += [
        "",
        f"Where the largest radius is asked for, `certified` is at {', '.join(f'{r:g}' for r in RADII)}, and what "
        "differs are radii and predicted classes.",
        "",
        "## Rate",
        "",
        "| model | images | batch | bare, images/s | ours / bare (range) | one by one / bare | bf16 / ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['model']} | {r['images']} | {r['batch']} | {r['bare']:,.0f} | "
        f"{r['ours']:.3f} ({r['low']:.3f} to {r['high']:.3f}) | {r['one_by_one']:.3f} | {r['bf16']:.2f} |"
        for r in found["rates"]
    ]
    lines += ["", f"bf16 in hardware: {machine['bf16']}.", "", "## Fits and bounds from gradients", ""]
    lines += ["| what | CPU s | |", "| --- | --- | --- |"]
    lines += [f"| {row['what']} | {row['seconds']:.3f} | {row['units']:.1f} {row['unit']} |" for row in found["timed"]]
    eps = ", ".join(f"{e:g}" for e in SHARES_AT)
    lines += ["", "## Interval bounds beside auto_LiRPA", ""]
    lines += [f"| tool | proved at Linf {eps} | CPU ms an image |", "| --- | --- | --- |"]
    lines += [
        f"| {row['tool']} | {', '.join(f'{s:.3f}' for s in row['shares'])} | {1000 * row['seconds']:.2f} |"
        for row in found["peers"]
    ]
    if len(found["peers"]) == 1:
        lines += ["", "auto_LiRPA could not be imported."]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return {
        "kind": platform.machine().replace("x86_64", "x86"),
        "cores": os.cpu_count(),
        "bf16": "yes" if "avx512_bf16" in flags or "amx_bf16" in flags else "no",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("savings", "rates", "timed", "peers"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rounds, images, n = (1, 5, 2000) if chosen.quick else (5, 100, 100_000)
    model, x, y = digits()
    small = SmallConvNet(channels=8).eval()
    wide = SmallConvNet(in_channels=3, channels=32).eval()
    sections: dict[str, Callable[[], list[Any]]] = {
        "savings": lambda: savings(model, x[:images], y[:images], n),
        "rates": lambda: [
            rate("small-conv:channels=8", small, (1, 28, 28), 200, rounds),
            rate("small-conv:channels=32", wide, (3, 32, 32), 200, rounds),
        ],
        "timed": lambda: [*fits(rounds), *bounds(min(rounds, 3))],
        "peers": lambda: peers(model, x[:32], y[:32]),
    }
    target = HERE / "certificates.json"
    measured = {key: [asdict(row) for row in work()] for key, work in sections.items() if chosen.only in (None, key)}
    # Read only now: sections may be measured side by side.
    before = json.loads(target.read_text()) if chosen.only and not chosen.quick and target.exists() else {}
    found = {key: [] for key in sections} | before | measured | {"machine": machine(), "n": n, "images": images}
    Console().print(page(found), markup=False)
    if not chosen.quick:
        target.write_text(json.dumps(found, indent=1) + "\n")
        target.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
