"""The plain neural ODE classifiers of Chu, Wei & Zhao 2020 (arXiv 2012.02452), solved over long times.

The paper states (sections 3.2 and 4.2, Table A1): dopri5 from t0 = 0; for MNIST 4 convolution layers of 128 channels
and t1 = 100, for CIFAR-10 5 of 256 and t1 = 500; ReLU activations; no augmentation; Adam at 1e-3 and 1e-4, halved every
50 epochs, 100 and 200 epochs, batches of 32. It states nothing else of the network and no code is known, so these are
our assumptions, most of them after the MNIST example of torchdiffeq (Chen et al. 2018), an argument where it can be:

1. The 4 or 5 convolutions are those of the right-hand side (`convolutions`), 3×3, as wide as the state.
2. Before the ODE comes that example's stem: a 3×3 convolution without padding, then norm, ReLU and a 4×4 convolution of
   stride 2 as often as `halvings` says, twice there. Dupont et al. 2019 solve on the pixels themselves.
3. After it: norm, ReLU, the mean over all pixels, and a linear layer.
4. The right-hand side is norm, ReLU, convolution, over and over, with a last norm; GroupNorm in 32 groups.
   `norm="none"` leaves the norms of the right-hand side out, as Dupont et al. do.
5. The time is a channel of each convolution, unscaled, so up to 500 (`time`). Dupont et al. have none by default.
6. Tolerance 1e-3 (`tol`), as in both.
7. Gradients run through the solver, not the adjoint (`gradient`), as is the default of both.
8. The step rule is differentiated in full (`grid`), as in the torchdiffeq of that year (0.1), and the batch shares its
   steps (`control`).
9. Weights begin as PyTorch draws them, but the last layer of the right-hand side is multiplied by `distance` / t1, so
   that the untrained flow moves the state by about `distance` however long it runs. On 32 images this takes 38
   evaluations for MNIST and 44 for CIFAR-10. With `distance` = t1, PyTorch's own weights, they are 92 and 104: not
   stiff either, since the norm sees ever less of a change in a state that grows to t1, but for that reason it learns
   later (80 batches of MNIST at 32 channels: loss 2.21 against 2.26).
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.conv_fields import ConvField, PlainNorm, normal
from verigrad.models.counts import check_counts
from verigrad.models.ode_block import GradientName, GridName, ODEBlock, named_solver

GROUPS = 32  # as in the example


class NeuralODE(nn.Module):
    """A stem, one ODE block and a linear layer: the common base of the two rows; what stands open has no default here.

    Images (B, in_channels, H, W) of sides from 2^(halvings + 1) + 2 up: 10, or 6 with one halving, as 8×8 digits need.

    Args:
        channels: of the stem and the state, below 32 or a multiple of 32.
        convolutions: in the right-hand side.
        t1: where the solve ends; it begins at 0.
        classes: K.
        in_channels: of the images.
        halvings: convolutions of stride 2 in the stem.
        norm: "group" or "none", in the right-hand side.
        time: whether the right-hand side sees the time.
        distance: how far the untrained flow moves the state, above 0.
        gradient: "direct", "checkpointed" or "adjoint".
        method, tol, control, steps, grid: how the block is solved, see `SONet`.
    """

    def __init__(
        self,
        *,
        channels: int,
        convolutions: int,
        t1: float,
        classes: int,
        in_channels: int,
        halvings: int,
        norm: PlainNorm,
        time: bool,
        distance: float,
        gradient: GradientName,
        method: str,
        tol: float,
        control: Literal["batch", "sample"],
        steps: int,
        grid: GridName,
    ) -> None:
        check_counts(
            type(self).__name__,
            channels=channels,
            convolutions=convolutions,
            classes=classes,
            in_channels=in_channels,
        )
        super().__init__()
        if halvings < 0:
            raise BadInput(f"The 'halvings' of {type(self).__name__} must be at least 0. Got {halvings!r}.")
        if not 0.0 < distance < math.inf:
            raise BadInput(
                f"The 'distance' of {type(self).__name__} must be a finite number above 0. Got {distance!r}."
            )
        solver = named_solver(method=method, tol=tol, control=control, steps=steps, grid=grid, t1=t1, gradient=gradient)
        # Two pixels a side for the state: GroupNorm of one pixel may see a single number in a group.
        self.smallest = 2 ** (halvings + 1) + 2
        stem: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3)]
        for _ in range(halvings):
            stem += [normal(channels, GROUPS), nn.ReLU(), nn.Conv2d(channels, channels, 4, 2, 1)]
        self.stem = nn.Sequential(*stem)
        field = ConvField(channels, convolutions=convolutions, groups=GROUPS, norm=norm, time=time, speed=distance / t1)
        self.block = ODEBlock(field, solver)
        self.head = nn.Sequential(
            normal(channels, GROUPS), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, in_channels, H, W)."""
        if min(x.shape[-2:]) < self.smallest:
            raise BadInput(
                f"The stem of this {type(self).__name__} needs images of at least {self.smallest}×{self.smallest}. Got "
                f"{x.shape[-2]}×{x.shape[-1]}; set fewer 'halvings'."
            )
        return self.head(self.block(self.stem(x)))


class NeuralODEMNIST(NeuralODE):
    """Four convolutions of 128 channels over [0, 100], for 28×28×1: the ODE runs on 6×6 pixels. 1,124,106 parameters.

    Args: see `NeuralODE`.
    """

    def __init__(
        self,
        channels: int = 128,
        convolutions: int = 4,
        t1: float = 100.0,
        classes: int = 10,
        in_channels: int = 1,
        *,
        halvings: int = 2,
        norm: PlainNorm = "group",
        time: bool = True,
        distance: float = 1.0,
        gradient: GradientName = "direct",
        method: str = "dopri5",
        tol: float = 1e-3,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        super().__init__(
            channels=channels,
            convolutions=convolutions,
            t1=t1,
            classes=classes,
            in_channels=in_channels,
            halvings=halvings,
            norm=norm,
            time=time,
            distance=distance,
            gradient=gradient,
            method=method,
            tol=tol,
            control=control,
            steps=steps,
            grid=grid,
        )


class NeuralODECIFAR(NeuralODE):
    """Five convolutions of 256 channels over [0, 500], for 32×32×3: the ODE runs on 7×7 pixels. 5,073,930 parameters.

    Args: see `NeuralODE`.
    """

    def __init__(
        self,
        channels: int = 256,
        convolutions: int = 5,
        t1: float = 500.0,
        classes: int = 10,
        in_channels: int = 3,
        *,
        halvings: int = 2,
        norm: PlainNorm = "group",
        time: bool = True,
        distance: float = 1.0,
        gradient: GradientName = "direct",
        method: str = "dopri5",
        tol: float = 1e-3,
        control: Literal["batch", "sample"] = "batch",
        steps: int = 1,
        grid: GridName = "all",
    ) -> None:
        super().__init__(
            channels=channels,
            convolutions=convolutions,
            t1=t1,
            classes=classes,
            in_channels=in_channels,
            halvings=halvings,
            norm=norm,
            time=time,
            distance=distance,
            gradient=gradient,
            method=method,
            tol=tol,
            control=control,
            steps=steps,
            grid=grid,
        )
