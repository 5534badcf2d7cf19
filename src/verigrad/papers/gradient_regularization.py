"""Finlay & Oberman 2021, Scaleable input gradient regularization for adversarial robustness."""

from __future__ import annotations

from verigrad.papers.table import Table

TRAINING = "CIFAR-10, ResNeXt-34 (2×32), 200 epochs, batch 128, SGD 0.9, lr 0.1 × 0.2 at 60, 120 and 160"
ATTACKS = "best of CW, Boundary, LogBarrier and PGD for each of 1,000 images"
IMAGENET = "ImageNet-1k, ResNet-50, top 5"

TABLE1 = Table(
    id="gradient-regularization/table1",
    title="Errors under Linf: bound and attacks",
    protocol=f"{TRAINING}; {ATTACKS}",
    keys=("training",),
    columns=("clean error %", "omega 2/255 %", "omega 8/255 %", "error 2/255 %", "error 8/255 %", "hours"),
    text="""
undefended                    : 4.36  | 100   | 100   | 70.82 | 98.94 | 2.06
7-step Linf 2/255             : 6.17  | 16.02 | 100   | 16.80 | 53.90 | 10.82
7-step Linf 8/255             : 16.33 | 26.59 | 58.32 | 22.86 | 46.02 | 12.10
free m=2                      : 6.82  | 20.08 | 100   | 22.61 | 63.95 | 1.91
free m=8                      : 19.94 | 38.52 | 100   | 34.09 | 61.48 | 2.04
l1 double backprop λ=0.1      : 6.50  | 25.69 | 100   | 41.63 | 97.31 | 9.85
l1 double backprop λ=1        : 12.62 | 33.05 | 99.43 | 33.95 | 80.37 | 9.89
l1 finite differences λ=0.1   : 6.45  | 19.40 | 100   | 24.92 | 70.41 | 5.22
l1 finite differences λ=1 h=0.1 : 9.02 | 20.66 | 55.30 | 18.47 | 58.69 | 5.15
""",
)

TABLE1_IMAGENET = Table(
    id="gradient-regularization/imagenet",
    title="Errors under Linf on ImageNet-1k",
    protocol=f"{IMAGENET}; {ATTACKS}",
    keys=("training",),
    columns=TABLE1.columns,
    text="""
undefended : 6.94  | 100  | 100 | 90.21 | 98.94 | 20.30
l2 λ=0.1   : 7.66  | 74.7 | 100 | 70.56 | 97.53 | 32.60
l2 λ=1     : 10.26 | 63.7 | 100 | 52.79 | 95.93 | 33.87
""",
)

TABLE2 = Table(
    id="gradient-regularization/table2",
    title="Mean distances under L2: bounds and attacks",
    protocol=f"{TRAINING}; {ATTACKS}",
    keys=("training",),
    columns=("clean error %", "L-bound", "omega-bound", "nearest error", "hours"),
    text="""
undefended                  : 4.36  | 0.006 | 0    | 0.12 | 2.06
7-step Linf 2/255           : 6.17  | 0.05  | 0.36 | 0.66 | 10.82
7-step Linf 8/255           : 16.33 | 0.18  | 0.55 | 0.74 | 12.10
free m=2                    : 6.82  | 0.06  | 0.35 | 0.53 | 1.91
free m=8                    : 19.94 | 0.03  | 0.29 | 0.49 | 2.04
l2 double backprop λ=0.1    : 5.91  | 0.006 | 0    | 0.13 | 9.60
l2 double backprop λ=1      : 4.35  | 0.01  | 0    | 0.15 | 9.74
l2 finite differences λ=0.1 : 8.03  | 0.14  | 0.34 | 0.63 | 5.18
l2 finite differences λ=1   : 20.31 | 0.30  | 0.50 | 0.81 | 5.08
""",
)

TABLE2_IMAGENET = Table(
    id="gradient-regularization/imagenet",
    title="Mean distances under L2 on ImageNet-1k",
    protocol=f"{IMAGENET}; {ATTACKS}",
    keys=("training",),
    columns=TABLE2.columns,
    text="""
undefended : 6.94  | 3.63e-2 | 0.5  | 0.55 | 20.30
l2 λ=0.1   : 7.66  | 0.13    | 0.96 | 1.14 | 32.60
l2 λ=1     : 10.26 | 0.26    | 1.23 | 1.75 | 33.87
""",
)

B3 = Table(
    id="gradient-regularization/b3",
    title="Gradient norms and the modulus of continuity under L2",
    protocol=f"{TRAINING}; of max_{{i≠c}} f_i − f_c on probabilities",
    keys=("training",),
    columns=("gradient mean", "gradient maximum", "omega 0.5", "omega 1.0"),
    text="""
undefended                  : 3.05 | 122.34 | 1.80 | 3.13
7-step Linf 2/255           : 0.63 | 11.96  | 0.08 | 0.32
7-step Linf 8/255           : 0.40 | 2.52   | 0.02 | 0.06
free m=2                    : 0.75 | 10.82  | 0.13 | 0.35
free m=8                    : 0.93 | 16.08  | 0.11 | 0.31
l2 double backprop λ=0.1    : 3.38 | 107.13 | 1.60 | 1.40
l2 double backprop λ=1      : 2.75 | 56.09  | 1.31 | 2.30
l2 finite differences λ=0.1 : 0.58 | 4.43   | 0.08 | 0.50
l2 finite differences λ=1   : 0.35 | 1.33   | 0.02 | 0.05
""",
)

B3_IMAGENET = Table(
    id="gradient-regularization/imagenet",
    title="Gradient norms and the modulus of continuity on ImageNet-1k",
    protocol=IMAGENET,
    keys=("training",),
    columns=B3.columns,
    text="""
undefended : 1.12 | 17.51 | 1.7e-2 | 6.7e-2
l2 λ=0.1   : 0.46 | 4.85  | 5.5e-3 | 2.2e-2
l2 λ=1     : 0.27 | 2.12  | 3.4e-3 | 2.1e-2
""",
)

B4 = Table(
    id="gradient-regularization/b4",
    title="The step h of the finite differences",
    protocol=f"{TRAINING}; squared l1 penalty, λ = 1; {ATTACKS}",
    keys=("training",),
    columns=("clean error %", "error 2/255 %", "error 8/255 %"),
    text="""
undefended      : 4.36  | 70.82 | 98.94
double backprop : 12.62 | 33.95 | 80.37
h=1e-4          : 39.68 | 50.95 | 84.20
h=1e-3          : 25.84 | 38.81 | 78.65
h=1e-2          : 14.47 | 26.54 | 69.91
h=0.1           : 9.02  | 18.47 | 58.69
h=1             : 5.51  | 45.93 | 83.86
""",
)

B5 = Table(
    id="gradient-regularization/b5",
    title="Error certified by randomized smoothing under L2",
    protocol=f"{TRAINING}; Cohen et al. 2019",
    keys=("training",),
    columns=tuple(f"{radius} %" for radius in ("0.25", "0.5", "0.75", "1.0", "1.25", "1.5", "1.75", "2.0")),
    text="""
undefended         : 90 | 92 | 96 | 99 | 100 | 100 | 100 | 100
l2 λ=1             : 47 | 63 | 80 | 90 | 90  | 90  | 90  | 90
Cohen et al. 2019  : 40 | 57 | 68 | 77 | 83  | 86  | 88  | 90
Salman et al. 2019 : 26 | 43 | 52 | 62 | 67  | 71  | 75  | 81
""",
)

B6 = Table(
    id="gradient-regularization/b6",
    title="Error certified by the omega-bound under L2",
    protocol=TRAINING,
    keys=("training",),
    columns=tuple(f"{radius} %" for radius in ("0.25", "0.5", "0.75", "1.0", "1.25", "1.5")),
    text="""
undefended                  : 100 | 100 | 100 | 100 | 100 | 100
7-step Linf 2/255           : 19  | 91  | 100 | 100 | 100 | 100
7-step Linf 8/255           : 31  | 47  | 61  | 77  | 100 | 100
l2 finite differences λ=0.1 : 22  | 99  | 100 | 100 | 100 | 100
l2 finite differences λ=1   : 33  | 50  | 65  | 80  | 98  | 100
""",
)

TABLES = (TABLE1, TABLE1_IMAGENET, TABLE2, TABLE2_IMAGENET, B3, B3_IMAGENET, B4, B5, B6)
