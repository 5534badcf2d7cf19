"""Changes of one thing in a classifier, for an attack to be built on: its twin has the same weights.

A change is a frozen dataclass called with a classifier; it returns the twin and leaves the classifier untouched.
`same_forward` says that the twin predicts the same classes, so that one pass serves both; `near`, where a change has
it, that the twin's logits are the classifier's but for rounding. Changes of the solver are in `solver_aware.py`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded


class Change(Protocol):
    """One thing changed in a classifier."""

    same_forward: ClassVar[bool]

    def __call__(self, model: nn.Module) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class Rescaled:
    """Logits divided by the sample's lead, max(1, z_(1) - z_(2)), held constant: cross-entropy cannot saturate."""

    same_forward: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return _Rescaled(model)


class _Rescaled(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits = self.module(x)
        top = logits.detach().topk(2, dim=1).values
        return logits / (top[:, :1] - top[:, 1:]).clamp(min=1.0)


@dataclass(frozen=True, kw_only=True)
class Float64:
    """The whole computation in double precision."""

    same_forward: ClassVar[bool] = False

    def __call__(self, model: nn.Module) -> nn.Module:
        return _Float64(copy.deepcopy(model).double())


class _Float64(nn.Module):
    input_dtype = torch.float64

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.double())


@dataclass(frozen=True, kw_only=True)
class BFloat16:
    """Forward and backward under torch's autocast to bfloat16: convolutions and products in 16 bits, sums in 32.

    It saves time where the processor or the accelerator computes in bfloat16. The logits are those of the classifier
    but for rounding, so an attack asks the classifier itself only about the samples that err here: every success is
    confirmed in the classifier's own precision.
    """

    same_forward: ClassVar[bool] = False
    near: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return _BFloat16(model)


class _BFloat16(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.module(x).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class NoiseAveraged:
    """The gradient averaged over `draws` copies of the input with normal noise, in pairs ±noise.

    For a random classifier this is expectation over transformation (Athalye et al. 2018), with sigma = 0 allowed. The
    noise is shared by the samples of a batch, so that no sample's result depends on its batch-mates.

    Args:
        sigma: standard deviation of the noise, in pixel units, from 0 up.
        draws: copies, from 1 up.
    """

    sigma: float = 0.05
    draws: int = 4
    same_forward: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.sigma < 0 or self.draws < 1:
            raise BadInput(
                f"NoiseAveraged needs sigma >= 0 and draws >= 1. Got sigma={self.sigma} and draws={self.draws}."
            )

    def __call__(self, model: nn.Module) -> nn.Module:
        return _NoiseAveraged(model, self.sigma, self.draws)


class _NoiseAveraged(nn.Module):
    def __init__(self, module: nn.Module, sigma: float, draws: int) -> None:
        super().__init__()
        self.module = module
        self.sigma = sigma
        self.draws = draws
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        stream = seeded(self.calls, "noise-averaged", range((self.draws + 1) // 2), device=x.device)
        self.calls += 1
        half = stream.normal(*x.shape[1:], dtype=x.dtype)
        noise = self.sigma * torch.cat([half, -half])[: self.draws]
        return torch.stack([self.module(x + one) for one in noise]).mean(0)


@dataclass(frozen=True, kw_only=True)
class IdentityBackward:
    """Steps without a derivative pass the gradient on as it is (BPDA with the identity, Athalye et al. 2018, sec. 4.1).

    Two kinds of steps are met: elementwise roundings (round, floor, ceil, trunc, sign, casts to integers) wherever they
    are called, and parts of the classifier that keep the shape of their input and cut the graph.
    """

    same_forward: ClassVar[bool] = True

    def __call__(self, model: nn.Module) -> nn.Module:
        return _IdentityBackward(model)


class _PassOn(torch.autograd.Function):
    """Gives `value` forward, and hands the gradient to `x` backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        del ctx, x
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradients[0], None


_ROUNDINGS = {
    getattr(owner, name)
    for owner in (torch, torch.Tensor)
    for name in ("round", "floor", "ceil", "trunc", "fix", "sign", "sgn")
}
_CASTS = {torch.Tensor.byte, torch.Tensor.int, torch.Tensor.long, torch.Tensor.short, torch.Tensor.char}


class _Roundings(TorchFunctionMode):
    """Gives every elementwise rounding the identity as its derivative."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        source = args[0] if args else None
        if not (isinstance(source, Tensor) and source.is_floating_point() and source.requires_grad):
            return value
        integer = isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()
        cast = func in _CASTS or (func is torch.Tensor.to and integer and value.dtype != torch.bool)
        if func in _ROUNDINGS or cast:
            return _PassOn.apply(source, value.to(source.dtype))
        return value


class _IdentityBackward(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        hooks = [part.register_forward_hook(_mend) for part in self.module.modules()]
        try:
            with _Roundings():
                return self.module(x)
        finally:
            for hook in hooks:
                hook.remove()


def _mend(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """Reconnects a part that gave back a tensor of its input's shape without a graph."""
    del part
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
        return output
    cut = inputs[0].requires_grad and not output.requires_grad and output.shape == inputs[0].shape
    return _PassOn.apply(inputs[0], output) if cut and output.is_floating_point() else output
