"""Attempts as in an audit, each stage on what the one before left; a program of its own, so that it can be killed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from controls import Coupled, Random
from subjects import Slow, opened, right, subject

from verigrad.attacks.fgsm import FGSM
from verigrad.evaluation.run import Wanted, attempts

SEQUENCE = (
    ("claim", (Slow(),)),
    ("intervention", (FGSM(), Slow(steps=6), Slow(steps=4))),
    ("escalation", (Slow(steps=12),)),
)


def audit(path: Path, wrap) -> None:
    of = subject(60, batch=6, eps=0.03, wrap=wrap)
    with opened(path, of) as ledger:
        left = right(ledger)
        told = {}
        for stage, several in SEQUENCE:
            wanted = [
                Wanted(stage=stage, name=f"attempt {i}", attack=one, samples=left) for i, one in enumerate(several)
            ]
            for done in attempts(of, ledger, wanted):
                left = [sample for sample in left if sample not in done.broken]
                passes = [done.forwards, done.backwards, done.judging]
                told[f"{stage}, {done.name}"] = [list(done.attempted), sorted(done.broken), *passes]
            ledger.put_note("health", stage, {"left": len(left)})
        ledger.put_summary({"attacks": told, "seal": ledger.seal()})


def main(folder: str) -> None:
    torch.set_num_threads(1)
    for kind in (None, Coupled, Random):
        audit(Path(folder) / f"{kind.__name__ if kind else 'plain'}.sqlite", kind)


if __name__ == "__main__":
    main(sys.argv[1])
