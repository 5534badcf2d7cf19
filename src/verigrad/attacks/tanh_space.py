"""Carlini and Wagner's change of variables (2017, section V.B.2): any w gives a valid image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# The authors' code shrinks images by this factor, so that a pixel on the box's border has a finite w and can move.
SHRINK = 0.999999


@dataclass(frozen=True, kw_only=True)
class TanhSpace:
    """x(w) = low + (high - low) · (tanh w + 1) / 2, pixel by pixel, with the threat's `bounds` (low, high)."""

    bounds: tuple[float, float]

    def image(self, w: Tensor) -> Tensor:
        low, high = self.bounds
        return ((w.tanh() + 1) * ((high - low) / 2) + low).clamp(low, high)

    def inverse(self, x: Tensor) -> Tensor:
        """w of an image shrunk by `SHRINK` towards the box's centre."""
        low, high = self.bounds
        return (SHRINK * ((x - low) * (2 / (high - low)) - 1)).atanh()

    def slope(self, x: Tensor) -> Tensor:
        """dx/dw at an image x = x(w)."""
        low, high = self.bounds
        return (1 - ((x - low) * (2 / (high - low)) - 1).square()) * ((high - low) / 2)
