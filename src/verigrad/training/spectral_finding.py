"""Which layers of a network are under the constraint, found in a forward pass of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from verigrad.core.errors import BadInput
from verigrad.core.operator_norm import Pair
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.training.spectral_layers import Layer

LINEAR = (nn.Linear, nn.Conv2d, AntisymmetricConv2d)
# Norms that divide by what they find in the image itself: no bound short of 1/√ε holds for them.
NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


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
            f"{layer.name!r} is antisymmetric, stands beside a skip, with a batch norm behind it. Leave that out."
        )
    weight = layer.module.weight
    square = len(weight) == weight.shape[1]
    if isinstance(layer.module, nn.Conv2d):
        _, stride, padding, dilation, groups = layer.geometry
        middle = tuple(k // 2 * d for k, d in zip(weight.shape[2:], dilation, strict=True))
        square &= stride == (1, 1) and groups == 1 and padding == middle and all(k % 2 for k in weight.shape[2:])
    if not square:
        raise BadInput(f"{layer.name!r} stands beside a skip, and must keep the shape of what it gets. It does not.")


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
