"""The sizes at which the table, the figure and the cost of the optimal-control paper are redone."""

from __future__ import annotations

from dataclasses import dataclass

from verigrad.papers.optimal_control import TABLE1
from verigrad.papers.workshop import Net

# The paper's own, which is 25.5 of 255.
EPS = 0.1
VANILLA, ADVERSARIAL, THEIRS = TABLE1.columns
# α = 1e-3 is the default. Momentum is not in the paper; without it a few epochs do not suffice.
THEIR_WAY = "successive-approximations:momentum=0.9"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One scale.

    Args:
        data, train: the data, and how many training images (None: all); n, walked: to attack, and to attack by C&W.
        epochs, batch, lr, schedule, weight_decay: of SGD. Successive approximations take `their_lr`, and their weight
            decay is the α of their layer problem: at 0.01 of the mean loss they do not leave chance in a few epochs.
        model: a ResNet18.
        inner, steps: of the PGD in training and in the attack; `walk`: settings of C&W.
        timed: training images and repetitions for `cost`.
        told: what differs from the paper.
    """

    data: str
    train: int | None
    n: int
    walked: int
    epochs: int
    batch: int
    lr: float
    their_lr: float
    schedule: str
    weight_decay: float
    model: str
    inner: int
    steps: int
    walk: str
    timed: tuple[int, int]
    told: str

    def net(self, column: str) -> Net:
        inner = f"pgd(steps={self.inner},keep=last)"
        objective = f"adversarial:threat=linf(eps={EPS}),attack={inner}" if column == ADVERSARIAL else "natural"
        theirs = column == THEIRS
        return Net(
            model=self.model,
            data=self.data,
            n=self.train,
            objective=objective,
            algorithm=THEIR_WAY if theirs else None,
            epochs=self.epochs,
            batch=self.batch,
            lr=self.their_lr if theirs else self.lr,
            weight_decay=0.0 if theirs else self.weight_decay,
            schedule=self.schedule,
        )


DIGITS = "digits 8×8 in place of CIFAR-10"
SETTINGS = {
    "smoke": Setting(
        data="digits",
        train=100,
        n=10,
        walked=3,
        epochs=1,
        batch=100,
        lr=0.01,
        their_lr=0.1,
        schedule="steps",
        weight_decay=1e-3,
        model="resnet18:channels=4",
        inner=1,
        steps=2,
        walk="cw-l0:steps=2,largest_constant=0.1",
        timed=(50, 1),
        told=f"{DIGITS}, 100 training images, one epoch, 4 channels: this only shows that it runs",
    ),
    "cpu": Setting(
        data="digits",
        train=None,
        n=100,
        walked=12,
        epochs=8,
        batch=50,
        lr=0.05,
        their_lr=0.1,
        schedule="one-cycle",
        weight_decay=1e-3,
        model="resnet18:channels=8",
        inner=10,
        steps=10,
        walk="cw-l0:steps=30",
        timed=(1250, 2),
        told=(
            f"{DIGITS}, 8 epochs at 0.05 (theirs: 0.1, momentum 0.9) in batches of 50, 8 channels for 64, n = 100 "
            "(C&W: 12 images, 30 steps), seed 0"
        ),
    ),
    "gpu": Setting(
        data="cifar10",
        train=None,
        n=1000,
        walked=100,
        epochs=15,
        batch=200,
        lr=0.01,
        their_lr=0.1,
        schedule="steps:at=(0.2,0.4,0.666666),factor=0.2",
        weight_decay=1e-3,
        model="resnet18",
        inner=10,
        steps=10,
        walk="cw-l0",
        timed=(4000, 3),
        told="15 epochs for 150, n = 1,000 (C&W: 100), seed 0",
    ),
    "paper": Setting(
        data="cifar10",
        train=None,
        n=10000,
        walked=1000,
        epochs=150,
        batch=200,
        lr=0.01,
        their_lr=0.01,
        schedule="steps:at=(0.2,0.4,0.666666),factor=0.2",
        weight_decay=1e-3,
        model="resnet18",
        inner=10,
        steps=10,
        walk="cw-l0:steps=1000",
        timed=(50000, 1),
        told="the paper's own settings, with momentum 0.9, which it does not name, and C&W on the first 1,000 images",
    ),
}
