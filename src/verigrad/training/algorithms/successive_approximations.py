"""The method of successive approximations with stable layers ("Adversarially Robust Neural Networks via Optimal
Control: Bridging Robustness with Lyapunov Stability", Algorithm 1 and section 4.2)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.training.algorithms.base import State
from verigrad.training.layer_sdp import solve
from verigrad.training.objectives.base import Objective
from verigrad.training.objectives.natural import Natural
from verigrad.training.spectral import unconstrained
from verigrad.training.spectral_constraint import Constraint
from verigrad.training.spectral_finding import constrained, fixed_norms, seen
from verigrad.training.spectral_layers import Layer

MEMORY = "pull/"


@dataclass(frozen=True, kw_only=True)
class SuccessiveApproximations:
    """Each batch, with x_t the input of layer t, z_t = θ_t x_t + b_t its output and J the mean loss:

        states      one forward pass;
        co-states   p_t = −∂J/∂z_t, one backward pass;
        layers      θ_t ← argmax ⟨Σ p_t x_tᵀ, θ⟩ − α‖θ‖² − β‖θ − θ_t‖²   subject to   ‖θ‖₂ ≤ 1, one by one.

    Σ p xᵀ is −∂J/∂θ exactly, so that one backward pass gives it for all layers at once. With ‖θ‖₂ ≤ 1 (Theorem 4) for
    ρ(θ) ≤ 1 the problem of a linear layer, and of a 1×1 convolution, is a projection (`training/spectral.py`), taken
    exactly at each step. That of a larger kernel is not: it is scaled by an estimate of its norm from below at each
    step, and made to keep the bound for certain at each `every`-th step and at the last (`training/
    spectral_kernels.py`), so that in between its norm can be some percent above 1.

    Where the paper is silent or cannot be followed (docs/math/successive-approximations.md):
    - J is the mean over the batch, as for learning rates; the paper's is the sum.
    - Biases and the weights of batch norms have the same problem without the constraint; the paper omits them.
    - In front of a batch norm the constraint does nothing to the network, whatever θ's scale. So batch norms are left
      out as norms: they compute with their running statistics and keep them (0 and 1 in a fresh network, those of its
      training in a trained one), and the constraint is on the layer with its batch norm folded into it. `norms=free`
      trains them as they are, with the constraint on the bare θ. Norms of another kind are refused unless free.
    - The net of two layers beside a skip is held to ‖F‖₂ ≤ 1 by its layers and x + F(x) to 2. For one layer beside a
      skip, `skips` moves the ball to −I: ‖I + θ‖₂ ≤ 1.
    - An antisymmetric layer θ − θᵀ − γI is constrained as a whole, which is possible for γ < 1.
    - `momentum` is not in the paper.

    The recipe's optimiser, its momentum, weight decay and clipping have no part: the step is the layer problem's. With
    beta=none the learning rate is 1 / (2(α + β)), so that a schedule rules β; else it has no part either.

    Parts: those of the objective, and "outside": the share of layers that the constraint moved.
    Passes: those of the objective: 1 forward, 1 backward with `natural`.

    Args:
        objective: J.
        alpha: α, weight decay, from 0 up; 1e-3 in the paper.
        beta: β, from 0 up; None for 1 / (2 lr) − α. At the paper's rate of 0.01 that is 49.999.
        momentum: in [0, 1): Σ p xᵀ of all batches, each batch's decaying by this factor; 0 for the batch's own.
        solver: "clip", or "sdp" for the matrices by the paper's semidefinite programme (extra `sdp`; slow).
        every: after how many steps kernels are made to keep the bound for certain, from 1 up.
        norms: "fold" or "free".
        skips: paths of layers beside a skip, as in `named_modules`.
        free: paths of modules that are not constrained, with all that is in them.
    """

    objective: Objective = Natural()  # noqa: RUF009 (frozen)
    alpha: float = 1e-3
    beta: float | None = None
    momentum: float = 0.0
    solver: Literal["clip", "sdp"] = "clip"
    every: int = 100
    norms: Literal["fold", "free"] = "fold"
    skips: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise BadInput(f"The {name!r} of SuccessiveApproximations must be a number in [0, inf). Got {value!r}.")
        if self.beta is not None and self.alpha + self.beta == 0:
            raise BadInput("'alpha' and 'beta' of SuccessiveApproximations must not both be 0: no step would end.")
        if not 0 <= self.momentum < 1:
            raise BadInput(f"The 'momentum' of SuccessiveApproximations must be in [0, 1). Got {self.momentum!r}.")
        if self.every < 1:
            raise BadInput(f"The 'every' of SuccessiveApproximations must be at least 1. Got {self.every!r}.")
        for name, value, allowed in (("solver", self.solver, ("clip", "sdp")), ("norms", self.norms, ("fold", "free"))):
            if value not in allowed:
                wanted = " or ".join(map(repr, allowed))
                raise BadInput(f"The {name!r} of SuccessiveApproximations must be {wanted}. Got {value!r}.")

    @property
    def needs_float32(self) -> bool:
        return bool(getattr(self.objective, "needs_float32", False))

    def step(self, state: State, x: Tensor, y: Tensor, *, generator: SampleGenerator) -> dict[str, Tensor]:
        beta = self._beta(state.lr)
        fold = self.norms == "fold"
        with fixed_norms(state.module, self.free) if fold else nullcontext(), seen(state.module) as found:
            with state.precision():
                loss = self.objective(state.model, x, y, generator=generator)
            loss.total.backward()
        with torch.no_grad():
            layers, alone = constrained(state.module, found, free=self.free, skips=self.skips, fold=fold)
            self._maximise(state, layers, beta)
            sure = state.step % self.every == 0 or state.step == state.steps - 1
            constrain = Constraint(memory=state.memory, sure=sure)
            outside = [*map(constrain, layers), *map(constrain.diagonal, alone)]
        # The weights are new already: the optimiser has no gradients left to use.
        state.optimiser.zero_grad()
        state.update()
        return loss.parts | {"outside": x.new_tensor(sum(outside) / len(outside))}

    def _beta(self, lr: float) -> float:
        if self.beta is not None:
            return self.beta
        beta = 1 / (2 * lr) - self.alpha
        if beta < 0:
            raise BadInput(
                f"A learning rate of {lr:g} needs an 'alpha' of at most {1 / (2 * lr):g}. Got {self.alpha:g}."
            )
        return beta

    def _maximise(self, state: State, layers: list[Layer], beta: float) -> None:
        """The layer problems: with their constraint by the semidefinite programme, else before it."""
        matrices = {id(one.module.weight): one for one in layers if one.is_matrix and one.norm is None}
        for name, weight in state.module.named_parameters():
            if weight.grad is None:
                continue
            pull = -weight.grad
            if self.momentum:
                pull += self.momentum * state.memory.get(MEMORY + name, torch.zeros_like(pull))
                state.memory[MEMORY + name] = pull
            layer = matrices.get(id(weight))
            if self.solver == "sdp" and layer is not None and layer.groups == 1:
                parts = pull.flatten(1), weight.flatten(1)
                found = solve(*parts, self.alpha, beta, shifted=layer.shifted).reshape(weight.shape)
            else:
                found = unconstrained(pull, weight, self.alpha, beta)
            weight.copy_(found)
