"""What the smoothed classifier answers at an image: Cohen et al. 2019's procedure PREDICT."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from verigrad.certificates.binomial import against_even
from verigrad.certificates.noisy_votes import NoisyVotes, Precision, check_noise
from verigrad.core.classifier import left_as_found
from verigrad.core.seeds import SampleGenerator


class SmoothedPrediction(NamedTuple):
    """Answers for N images.

    Args:
        predicted: (N,) int64; -1 where it abstains.
        abstained: (N,) bool.
        counts: (N, K + 1) int64 votes, the last column those of logits that were not finite.
    """

    predicted: Tensor
    abstained: Tensor
    counts: Tensor


def predict_smoothed(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    generator: SampleGenerator,
    n: int = 1000,
    alpha: float = 0.001,
    dtype: Precision = "model",
    batch: int = 200,
) -> SmoothedPrediction:
    """The class with most of n votes, or none where its lead over the next may be chance.

    It abstains unless a fair coin would part the votes of the first two classes so unevenly, or more so, with a chance
    of at most alpha. The answer is then another than the smoothed classifier's with a chance of at most alpha
    (Proposition 1; Hung & Fithian 2019). The model is left as it was found.

    Args:
        x: (N, C, H, W) in [0, 1], where the model is; batches are made of several images.
        sigma, dtype, batch: as those of `Smoothing`.
        generator: one stream for each image.
        n: votes on each image.
        alpha: in (0, 1).

    Raises:
        BadInput: a setting is out of range.
    """
    check_noise("predict_smoothed", sigma=sigma, alpha=alpha, dtype=dtype, n=n, batch=batch)
    seeds = generator.bits(1).squeeze(1).tolist()
    with left_as_found(model):
        votes = NoisyVotes(model, x, sigma=sigma, seeds=seeds, batch=batch, dtype=dtype)
        counts = votes.more(range(len(x)), n)
    (first, second), place = counts.topk(2, dim=1).values.T, counts.argmax(1)
    p_value = against_even(first.cpu().numpy(), (first + second).cpu().numpy())
    # The last column is no class: where it leads there is no answer.
    sure = torch.from_numpy(p_value <= alpha).to(x.device) & (place < counts.shape[1] - 1)
    return SmoothedPrediction(torch.where(sure, place, -1), ~sure, counts)
