"""The 1,797 handwritten digits of scikit-learn, 8×8 with 17 grey levels (Alpaydin & Kaynak 1998, UCI "optdigits")."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits as sklearn_digits

from verigrad.core.seeds import derive_seed
from verigrad.data.images import Images

TEST = 500


def load_digits(split: str) -> Images:
    """The first 500 images of a fixed order are the test set (50 of each class), the other 1,297 are for training.

    The order is a hash of each image's number, taken class by class in turn, so that every first n are as balanced as
    they can be. Writers are mixed: a writer may have digits in both splits.

    Args:
        split: "train" or "test".
    """
    flat, target = sklearn_digits(return_X_y=True)
    labels = [int(label) for label in target]
    order = torch.tensor(_balanced(labels))
    order = order[:TEST] if split == "test" else order[TEST:]
    return Images(
        x=torch.tensor(flat, dtype=torch.float32).reshape(-1, 1, 8, 8)[order] / 16,
        y=torch.tensor(labels)[order],
        ids=torch.arange(len(order)),
        classes=10,
        name="digits",
    )


def _balanced(labels: list[int]) -> list[int]:
    """Numbers of the images: the first of each class, then the second of each, and so on."""
    shuffled = sorted(range(len(labels)), key=lambda i: derive_seed("digits", i))
    rank: dict[int, int] = {}
    seen = [0] * (max(labels) + 1)
    for i in shuffled:
        rank[i] = seen[labels[i]]
        seen[labels[i]] += 1
    return sorted(shuffled, key=lambda i: rank[i])
