"""Which layers of a network have a norm that can be bounded, what follows them, and how large their images are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verigrad.core.errors import BadInput
from verigrad.core.operator_norm import Pair
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.training.spectral_kernels import Geometry

LINEAR = (nn.Linear, nn.Conv2d, AntisymmetricConv2d)
# Norms that divide by what they find in the image itself: no bound short of 1/√ε holds for them.
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


# Below this gain a folded kernel is not divided by it.
SMALLEST_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class Layer:
    """x ↦ θx + b: a linear layer, a convolution with zero padding, or an antisymmetric one; with the batch norm that
    takes its output, if one does: then θ is the weight times diag(w / √(v + ε)), v the running variance.

    size: the largest images that it meets. shifted: whether it stands beside a skip, so that x + θx counts.
    """

    name: str
    module: nn.Linear | nn.Conv2d | AntisymmetricConv2d
    size: Pair
    norm: _BatchNorm | None
    shifted: bool

    @property
    def limit(self) -> float:
        """The bound on the norm of `kernel`: 1; for θ = S − γI with Sᵀ = −S, whose eigenvalues are −γ + iω, that on ω:
        ω² ≤ 1 − γ² gives ‖θ‖ ≤ 1, and ω² ≤ 2γ − γ² gives ‖I + θ‖ ≤ 1.
        """
        if not isinstance(self.module, AntisymmetricConv2d) or self.norm is not None:
            return 1.0
        gamma = float(self.module.gamma)
        square = gamma * (2 - gamma) if self.shifted else 1 - gamma**2
        if square <= 0:
            wanted = "in (0, 2)" if self.shifted else "below 1"
            raise BadInput(f"The 'gamma' of the antisymmetric layer {self.name!r} must be {wanted}. Got {gamma:g}.")
        return math.sqrt(square)

    @property
    def groups(self) -> int:
        """1 but for a convolution in groups."""
        return self.module.groups if isinstance(self.module, nn.Conv2d) else 1

    @property
    def is_matrix(self) -> bool:
        """Whether its operator norm is that of its weight as a matrix: also for a kernel of one pixel."""
        return not isinstance(self.module, AntisymmetricConv2d) and math.prod(self.module.weight.shape[2:]) == 1

    @property
    def only_scales(self) -> bool:
        """Whether a kernel near `kernel` cannot be put in its place, and only a multiple of it can."""
        if self.norm is None:
            return False
        return isinstance(self.module, AntisymmetricConv2d) or float(self._gain().abs().min()) < SMALLEST_GAIN

    @property
    def geometry(self) -> Geometry:
        """Of a convolution."""
        module = self.module
        assert not isinstance(module, nn.Linear)
        if isinstance(module, AntisymmetricConv2d):
            middle = module.weight.shape[-1] // 2
            return Geometry(self.size, padding=(middle, middle))
        stride, padding, dilation = (_pair(value) for value in (module.stride, module.padding, module.dilation))
        return Geometry(self.size, stride, padding, dilation, self.groups)

    def kernel(self) -> Tensor:
        """What the constraint bounds: θ, or I + θ beside a skip; S of an antisymmetric layer without a batch norm."""
        weight = self.module.weight.detach()
        if isinstance(self.module, AntisymmetricConv2d):
            skew = weight - weight.transpose(0, 1).flip(2, 3)
            return skew if self.norm is None else (skew - self.module.gamma * _identity(weight)) * self._gain()
        theta = weight if self.norm is None else weight * self._gain()
        return theta + _identity(weight) if self.shifted else theta

    def put(self, kernel: Tensor) -> None:
        """Makes the weight such that `kernel()` is this one; of an antisymmetric layer by the least change."""
        weight = self.module.weight.detach()
        if isinstance(self.module, AntisymmetricConv2d):
            weight.add_((kernel - self.kernel()) / 2)
            return
        theta = kernel - _identity(weight) if self.shifted else kernel
        weight.copy_(theta if self.norm is None else theta / self._gain())

    def scale(self, factor: float) -> None:
        """Multiplies `kernel()`."""
        if isinstance(self.module, AntisymmetricConv2d) and self.norm is not None:
            self.norm.weight.detach().mul_(factor)
        elif self.shifted and not isinstance(self.module, AntisymmetricConv2d):
            weight = self.module.weight.detach()
            identity = _identity(weight) if self.norm is None else _identity(weight) / self._gain()
            weight.mul_(factor).add_(identity, alpha=factor - 1)
        else:
            self.module.weight.detach().mul_(factor)

    def _gain(self) -> Tensor:
        """Of the batch norm, in the shape in which it multiplies the weight."""
        assert self.norm is not None
        return gain(self.norm).reshape(-1, *[1] * (self.module.weight.dim() - 1))


def gain(norm: _BatchNorm) -> Tensor:
    """(channels,): what a batch norm multiplies by in evaluation, w / √(v + ε)."""
    assert norm.running_var is not None
    inverse = (norm.running_var + norm.eps).rsqrt()
    return inverse if norm.weight is None else norm.weight.detach() * inverse


@dataclass
class Seen:
    """What a forward pass showed. sizes: of the images at each layer. norms: by layer, the batch norm behind it."""

    sizes: dict[nn.Module, Pair] = field(default_factory=dict)
    norms: dict[nn.Module, _BatchNorm] = field(default_factory=dict)
    fed: set[nn.Module] = field(default_factory=set)


@contextmanager
def seen(network: nn.Module) -> Iterator[Seen]:
    """Watches the first whole pass of a network within a block. A batch norm stands behind a layer if it is given the
    very tensor that the layer returned; that nothing else uses this tensor is taken for granted.
    """
    found = Seen()
    outputs: list[tuple[Tensor, nn.Module]] = []

    def layer(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        shape = args[0].shape[2:]
        size = (int(shape[0]), int(shape[1])) if len(shape) == 2 else (1, 1)
        before = found.sizes.get(module, size)
        found.sizes[module] = (max(size[0], before[0]), max(size[1], before[1]))
        outputs.append((output, module))

    def norm(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        found.fed.add(module)
        for output, source in outputs:
            if output is args[0]:
                found.norms[source] = module

    with ExitStack() as hooks:

        def end(module: nn.Module, args: object, output: object) -> None:
            outputs.clear()
            hooks.close()

        for module in network.modules():
            if isinstance(module, LINEAR):
                hooks.callback(module.register_forward_hook(layer).remove)
            elif isinstance(module, _BatchNorm):
                hooks.callback(module.register_forward_pre_hook(norm).remove)
        hooks.callback(network.register_forward_hook(end).remove)
        yield found
    outputs.clear()


class Constrained(NamedTuple):
    """What is under the constraint, in the order of the network: layers, and batch norms that no layer feeds."""

    layers: list[Layer]
    alone: list[_BatchNorm]


def constrained(
    network: nn.Module, found: Seen, *, free: tuple[str, ...], skips: tuple[str, ...], fold: bool
) -> Constrained:
    """What of a network is under the constraint. What is frozen, and what the pass did not use, is not.

    Args:
        free: paths of modules that are left out, with all that is in them.
        skips: paths of layers beside a skip.
        fold: whether norms count.

    Raises:
        BadInput: a path of none; a module with weights, or a norm, for which no constraint is known; nothing is left.
    """
    named = dict(network.named_modules())
    for path in (*free, *skips):
        if path not in named:
            raise BadInput(f"The network has no module {path!r}. Name one such as {', '.join(list(named)[1:5])}.")
    bound = {name: module for name, module in named.items() if not _within(name, free)}
    if not fold:
        bound = {name: module for name, module in bound.items() if not isinstance(module, (_BatchNorm, *NORMS))}
    layers = []
    for name, module in bound.items():
        _check_known(name, module)
        if isinstance(module, LINEAR) and module in found.sizes:
            norm = found.norms.get(module)
            norm = norm if norm in bound.values() else None
            layers.append(Layer(name, module, found.sizes[module], norm, name in skips))
            _check_skip(layers[-1])
    layers = [one for one in layers if one.module.weight.requires_grad]
    alone = found.fed - set(found.norms.values())
    norms = [one for one in bound.values() if isinstance(one, _BatchNorm) and one in alone and one.weight.requires_grad]
    if not layers and not norms:
        raise BadInput("No layer is left for the constraint. Name fewer in 'free', or train by another algorithm.")
    return Constrained(layers, norms)


def _within(name: str, paths: tuple[str, ...]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _check_known(name: str, module: nn.Module) -> None:
    """Refuses what has weights or divides, and is neither a known layer nor a batch norm: BadInput."""
    kind = type(module).__name__
    if isinstance(module, LINEAR):
        weight = module.weight
        plain = isinstance(weight, nn.Parameter) and type(module).forward in {known.forward for known in LINEAR}
        padded = not isinstance(module, nn.Conv2d) or (
            module.padding_mode == "zeros" and not isinstance(module.padding, str)
        )
        known = plain and padded
    elif isinstance(module, _BatchNorm):
        known = module.running_var is not None and module.weight is not None
    else:
        known = not isinstance(module, NORMS) and next(module.parameters(recurse=False), None) is None
    if not known:
        raise BadInput(
            f"No bound on the norm of {kind} ({name!r}) is known. Use a network without it, or put {name!r} in 'free' "
            "to train it without the constraint."
        )


def _check_skip(layer: Layer) -> None:
    """Refuses a skip around a layer that does not keep the shape: BadInput."""
    if not layer.shifted:
        return
    if isinstance(layer.module, AntisymmetricConv2d) and layer.norm is not None:
        raise BadInput(
            f"{layer.name!r} is antisymmetric, stands beside a skip, and a batch norm follows it: use fewer."
        )
    weight = layer.module.weight
    square = len(weight) == weight.shape[1]
    if isinstance(layer.module, nn.Conv2d):
        _, stride, padding, dilation, groups = layer.geometry
        middle = tuple(k // 2 * d for k, d in zip(weight.shape[2:], dilation, strict=True))
        square &= stride == (1, 1) and groups == 1 and padding == middle and all(k % 2 for k in weight.shape[2:])
    if not square:
        raise BadInput(f"{layer.name!r} stands beside a skip, and must keep the shape of what it gets. It does not.")


def _identity(weight: Tensor) -> Tensor:
    """The weight of the identity: of a square matrix, or of a kernel of odd size."""
    identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    if weight.dim() == 2:
        return identity
    kernel = torch.zeros_like(weight)
    kernel[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = identity
    return kernel


def _pair(value: Any) -> Pair:
    first, second = value if isinstance(value, tuple | list) else (value, value)
    return int(first), int(second)


@contextmanager
def fixed_norms(network: nn.Module, free: tuple[str, ...]) -> Iterator[None]:
    """Batch norms compute with their running statistics, and leave them as they are, for the length of a block: what
    they do in training is then what they do in evaluation, and one affine map for all batches.

    Args:
        free: paths of modules within which they stay as they are.
    """
    fixed = [
        module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.training and not _within(name, free)
    ]
    for norm in fixed:
        norm.eval()
    try:
        yield
    finally:
        for norm in fixed:
            norm.train()
