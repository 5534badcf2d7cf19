"""Huang, Yu, Zhang, Ma & Yao 2021, Adversarial robustness of stabilized neural ODEs might be from obfuscated
gradients."""

from __future__ import annotations

from verigrad.papers.table import Table

TRAINING = "CIFAR-10, 350 epochs, batch 100, SGD 0.9, lr 0.01 / 10 at 150 and 300, no weight decay; Dopri5 at 0.1"

TABLE1 = Table(
    id="sonet/table1",
    title="SONet and SOBlock, trained naturally, and ResNet10 with TRADES under PGD",
    protocol=f"{TRAINING}; Linf 0.031 in steps of 0.003, L2 0.5 in steps of 0.1; the whole test set",
    keys=("model", "channels", "attack"),
    columns=("natural %", "Linf 0.031 %", "L2 0.5 %"),
    text="""
SONet             | 32 | PGD-20   : 88.08 | 53.67 | 57.39
SOBlock           | 32 | PGD-20   : 90.28 | 58.21 | 60.25
ResNet10-TRADES 1 | 32 | PGD-20   : 81.52 | 35.26 | 57.07
ResNet10-TRADES 6 | 32 | PGD-20   : 73.69 | 43.46 | 55.73
SONet             | 64 | PGD-20   : 89.36 | 61.62 | 64.08
SOBlock           | 64 | PGD-20   : 91.57 | 62.35 | 64.70
ResNet10-TRADES 1 | 64 | PGD-20   : 82.74 | 37.64 | 58.97
ResNet10-TRADES 6 | 64 | PGD-20   : 76.29 | 45.24 | 57.28
SONet             | 32 | PGD-1000 : 88.08 | 19.62 | 31.75
SOBlock           | 32 | PGD-1000 : 90.28 | 52.01 | 52.79
ResNet10-TRADES 1 | 32 | PGD-1000 : 81.52 | 33.60 | 56.70
ResNet10-TRADES 6 | 32 | PGD-1000 : 73.69 | 43.30 | 55.48
SONet             | 64 | PGD-1000 : 89.36 | 24.25 | 39.79
SOBlock           | 64 | PGD-1000 : 91.57 | 55.43 | 57.37
ResNet10-TRADES 1 | 64 | PGD-1000 : 82.74 | 35.78 | 58.73
ResNet10-TRADES 6 | 64 | PGD-1000 : 76.29 | 44.70 | 56.87
""",
)

TABLE2 = Table(
    id="sonet/table2",
    title="Solvers and tolerances under PGD: only adaptive steps resist",
    protocol=f"{TRAINING.partition(';')[0]}; SOBlock on WRN-34-10; Linf 0.031 in steps of 0.003",
    keys=("model", "solver"),
    columns=("natural %", "PGD-20 %", "PGD-1000 %"),
    text="""
SOBlock | euler                : 94.41 | 0     | 0
SOBlock | rk4                  : 92.06 | 0     | 0
SOBlock | dopri5 0.1           : 94.22 | 71.20 | 63.20
SOBlock | dopri5 0.01          : 93.98 | 64.66 | 46.40
SOBlock | dopri5 0.001         : 94.32 | 63.87 | 46.20
SOBlock | bosh3 0.1            : 92.85 | 66.00 | 52.84
SOBlock | bosh3 0.01           : 92.30 | 67.06 | 59.74
SOBlock | bosh3 0.001          : 92.38 | 65.03 | 55.31
SOBlock | adaptive-heun 0.1    : 92.42 | 61.16 | 55.84
SOBlock | adaptive-heun 0.01   : 92.43 | 63.95 | 53.79
SOBlock | adaptive-heun 0.001  : 92.73 | 57.68 | 45.33
ODENet  | euler                : 87.04 | 0     | 0
ODENet  | rk4                  : 87.78 | 0     | 0
ODENet  | dopri5 0.1           : 87.41 | 42.69 | 13.14
ODENet  | dopri5 0.01          : 87.46 | 37.20 | 8.36
ODENet  | dopri5 0.001         : 87.54 | 36.19 | 7.75
""",
)

TABLE3 = Table(
    id="sonet/table3",
    title="The times that ODENet's solver accepts, under longer and longer PGD",
    protocol="CIFAR-10, ODENet, Dopri5, PGD under Linf",
    keys=("solver", "PGD steps"),
    columns=("times",),
    text="""
dopri5 0.1   | 1    : 0.0 0.262 1.0
dopri5 0.1   | 100  : 0.0 0.253 1.0
dopri5 0.1   | 1000 : 0.0 0.244 1.0
dopri5 0.01  | 1    : 0.0 0.155 0.827 1.0
dopri5 0.01  | 100  : 0.0 0.150 0.793 1.0
dopri5 0.01  | 1000 : 0.0 0.149 0.789 1.0
dopri5 0.001 | 1    : 0.0 0.097 0.423 1.0
dopri5 0.001 | 100  : 0.0 0.096 0.420 1.0
dopri5 0.001 | 1000 : 0.0 0.094 0.409 0.981 1.0
""",
)

TABLE4 = Table(
    id="sonet/table4",
    title="The models of table 1 under CW-Linf and SPSA",
    protocol=f"{TRAINING}; Linf 0.031; CW-Linf 100 iterations; SPSA 20 iterations of 32 samples",
    keys=("model", "channels"),
    columns=("natural %", "CW-Linf %", "SPSA %"),
    text="""
SONet             | 32 : 88.08 | 0     | 2.50
SOBlock           | 32 : 90.28 | 0     | 7.64
ResNet10-TRADES 1 | 32 : 81.52 | 37.61 | 68.30
ResNet10-TRADES 6 | 32 : 73.69 | 38.92 | 63.60
SONet             | 64 : 89.36 | 11.20 | 15.10
SOBlock           | 64 : 91.57 | 0     | 11.68
ResNet10-TRADES 1 | 64 : 82.74 | 35.78 | 69.97
ResNet10-TRADES 6 | 64 : 76.29 | 39.77 | 65.97
""",
)

TABLES = (TABLE1, TABLE2, TABLE3, TABLE4)
