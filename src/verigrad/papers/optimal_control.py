"""Adversarially robust neural networks via optimal control: bridging robustness with Lyapunov stability."""

from __future__ import annotations

from verigrad.papers.table import Table

PROTOCOL = "CIFAR-10, ResNet18, 150 epochs, batch 200, lr 0.01 / 5 at 30, 60 and 100; eps 0.1; C&W in L0"

TABLE1 = Table(
    id="optimal-control/table1",
    title="Natural, adversarial and stable training under attack",
    protocol=PROTOCOL,
    keys=("attack",),
    columns=("vanilla %", "adversarial training %", "theirs %"),
    text="""
none   : 80.73 | 79.61 | 74.49
FGSM   : 2.34  | 77.45 | 49.32
PGD-10 : 0.02  | 46.67 | 36.33
C&W    : 0.01  | 21.15 | 16.80
""",
)

# Section 5.2, in the running text.
COST = Table(
    id="optimal-control/cost",
    title="GPU time of adversarial training beside theirs",
    protocol=PROTOCOL,
    keys=("ratio",),
    columns=("times",),
    text="""
adversarial training over theirs : 10
""",
)

TABLES = (TABLE1, COST)
