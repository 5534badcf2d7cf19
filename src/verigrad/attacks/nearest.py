"""The nearest errors that a minimal attack has met, whatever the order in which it met them."""

from __future__ import annotations

import torch
from torch import Tensor

from verigrad.attacks.base import AttackResult, Probe
from verigrad.core.threat import Threat


class Nearest:
    """Of each sample of x (B, C, H, W) the nearest error so far, `x_adv`, and its `distance` (B,) in threat's norm.

    Until an error is met `x_adv` is x and `distance` is infinite. How far the threat allows to go plays no part before
    `result`.
    """

    def __init__(self, x: Tensor, threat: Threat) -> None:
        self.x = x
        self.threat = threat
        self.x_adv = x
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def note(self, here: Tensor, rows: Tensor, wrong: Tensor) -> None:
        """The points here (R, C, H, W) of rows (R,) were asked, and those in wrong (R,) are errors."""
        everyone = len(rows) == len(self.x)
        x, kept, least = (t if everyone else t[rows] for t in (self.x, self.x_adv, self.distance))
        distance = self.threat.distance(here, x)
        nearer = wrong & (distance < least)
        kept = torch.where(nearer.reshape(-1, 1, 1, 1), here, kept)
        least = torch.where(nearer, distance, least)
        self.x_adv = kept if everyone else self.x_adv.index_copy(0, rows, kept)
        self.distance = least if everyone else self.distance.index_copy(0, rows, least)

    def result(self, probe: Probe) -> AttackResult:
        """The nearest errors that lie inside the threat, judged as one batch; samples without one keep their image."""
        inside = torch.isfinite(self.distance) & self.threat.contains(self.x_adv, self.x)
        return probe.result(torch.where(inside.reshape(-1, 1, 1, 1), self.x_adv, self.x), self.x, self.threat)
