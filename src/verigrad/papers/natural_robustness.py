"""Chu, Wei & Zhao 2020, Towards natural robustness against adversarial examples."""

from __future__ import annotations

from verigrad.papers.table import Table

ATTACKS = "FGSM and PGD of 40 steps of 0.01 from a random start, under Linf"

TABLE1_MNIST = Table(
    id="natural-robustness/table1",
    title="ResNet50 and a plain neural ODE on MNIST",
    protocol=f"MNIST without augmentation; {ATTACKS}",
    keys=("attack", "model"),
    columns=("0.2 %", "0.3 %", "0.4 %", "0.5 %"),
    text="""
FGSM | ResNet50   : 25.20 | 10.95 | 9.80  | 9.75
FGSM | neural ODE : 97.50 | 97.46 | 97.52 | 97.48
PGD  | ResNet50   : 0     | 0     | 0     | 0
PGD  | neural ODE : 93.62 | 90.55 | 84.64 | 75.23
""",
)

TABLE1_CIFAR = Table(
    id="natural-robustness/table1",
    title="ResNet50 and a plain neural ODE on CIFAR-10",
    protocol=f"CIFAR-10 without augmentation; {ATTACKS}",
    keys=("attack", "model"),
    columns=("8/255 %", "12/255 %", "16/255 %", "20/255 %"),
    text="""
FGSM | ResNet50   : 4.65  | 4.16  | 3.60  | 3.26
FGSM | neural ODE : 60.70 | 60.65 | 60.67 | 60.67
PGD  | ResNet50   : 0     | 0     | 0     | 0
PGD  | neural ODE : 59.15 | 56.93 | 53.58 | 49.53
""",
)

TABLE2 = Table(
    id="natural-robustness/table2",
    title="Three ways of adversarial training beside the neural ODE",
    protocol="CIFAR-10; PreAct-ResNet18 with PGD-10, TRADES-10 and YOPO-5-3; PGD-20 at 8/255",
    keys=("model", "training"),
    columns=("clean %", "PGD-20 %"),
    text="""
PreAct-ResNet18 | PGD-10    : 84.82 | 41.61
PreAct-ResNet18 | TRADES-10 : 86.14 | 44.50
PreAct-ResNet18 | YOPO-5-3  : 83.99 | 44.72
neural ODE      | natural   : 69.94 | 59.06
""",
)

# Section 4.2, in the running text.
CLEAN = Table(
    id="natural-robustness/table1",
    title="Accuracy without an attack",
    protocol="no augmentation",
    keys=("model",),
    columns=("MNIST %", "CIFAR-10 %"),
    text="""
ResNet50   : 99.33 | 89.60
neural ODE : 99.05 | 69.94
""",
)

TABLES = (TABLE1_MNIST, TABLE1_CIFAR, TABLE2, CLEAN)
