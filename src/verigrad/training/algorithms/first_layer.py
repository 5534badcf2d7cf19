"""A network as g(f₀(x)): its first layer f₀ evaluated alone, and the place where the two are cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from verigrad.core.errors import BadInput
from verigrad.models.normalised import Normalised

# What is affine in its input, whatever its weights. A class that overrides `forward` is not taken for one of these.
AFFINE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


class _Reached(Exception):
    """Ends a forward pass at the first layer. value: its input before it, its output behind it."""

    def __init__(self, layer: nn.Module, value: Any) -> None:
        super().__init__()
        self.layer = layer
        self.value = value


@dataclass
class Cut:
    """What was seen at the cut in a forward pass.

    outputs: f₀(x), with the graph back to x and to the weights of f₀. leaves: the same values, where the graph of the
    loss begins; its `.grad` is p = ∂ℓ/∂f₀(x) after a backward pass.
    """

    outputs: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class FirstLayer:
    """f₀: everything in `model` up to and with the output of `layer`. affine: whether it is known to be so in x."""

    model: nn.Module
    layer: nn.Module
    affine: bool

    def __call__(self, x: Tensor) -> Tensor:
        """f₀(x); nothing behind it is evaluated."""

        def stop(layer: nn.Module, args: Any, output: Tensor) -> NoReturn:
            raise _Reached(layer, output)

        with _hooked(self.layer.register_forward_hook(stop)):
            try:
                self.model(x)
            except _Reached as reached:
                return reached.value
        raise AssertionError("The first layer was found in a pass, and is not in the next.")

    @contextmanager
    def cut(self) -> Iterator[Cut]:
        """Passes inside it are cut behind f₀."""
        cut = Cut()

        def part(layer: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise BadInput(f"The first layer must give one tensor. {type(layer).__name__} does not. Name another.")
            cut.outputs.append(output)
            cut.leaves.append(output.detach().requires_grad_())
            return cut.leaves[-1]

        with _hooked(self.layer.register_forward_hook(part)):
            yield cut


def first_layer(model: nn.Module, x: Tensor, name: str = "") -> FirstLayer:
    """Finds f₀ by a pass that ends before the first layer with weights.

    Args:
        model: the network.
        x: a batch that it takes.
        name: path of the module, as in `named_modules`; "" for the first module that is reached, has weights and has no
            parts of its own.

    Raises:
        BadInput: there is no such module, or x comes to none with weights.
    """
    layers = {path: module for path, module in model.named_modules() if _is_layer(module) or (path and path == name)}
    if name and name not in layers:
        raise BadInput(f"The model has no module {name!r}. Give 'first' as one such as {_some(layers)}.")
    named = layers[name] if name else None
    affine_in_x = [x]
    handed_on: set[nn.Module] = set()

    def arrive(layer: nn.Module, args: tuple[Any, ...]) -> NoReturn:
        raise _Reached(layer, args[0] if args else None)

    def normalise(outer: nn.Module, args: tuple[Any, ...]) -> None:
        if args and _among(args[0], affine_in_x):
            handed_on.add(outer.get_submodule("module"))

    def hand_on(layer: nn.Module, args: tuple[Any, ...]) -> None:
        if layer in handed_on:
            affine_in_x.append(args[0])

    handles: list[RemovableHandle] = []
    for module in model.modules():
        if isinstance(module, Normalised):
            handles.append(module.register_forward_pre_hook(normalise))
            handles.append(module.module.register_forward_pre_hook(hand_on))
    # Last, so that a layer that `Normalised` holds is told its input first.
    handles += [layer.register_forward_pre_hook(arrive) for layer in layers.values()]
    with _hooked(*handles), torch.no_grad():
        try:
            model(x)
        except _Reached as reached:
            layer = reached.layer if named is None else named
            forwards = {kind.forward for kind in AFFINE}
            seen = layer is reached.layer and _among(reached.value, affine_in_x)
            return FirstLayer(model, layer, affine=seen and type(layer).forward in forwards)
    raise BadInput("YOPO needs a first layer with weights. This model has none. Name a module as 'first'.")


def _some(layers: dict[str, nn.Module]) -> str:
    return ", ".join(list(layers)[:4]) or "the name of one of its parts"


def _is_layer(module: nn.Module) -> bool:
    parts = {part for part, _ in module.named_children()}
    return parts <= {"parametrizations"} and next(module.parameters(), None) is not None


def _among(tensor: object, known: list[Tensor]) -> bool:
    return any(tensor is one for one in known)


@contextmanager
def _hooked(*handles: RemovableHandle) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield
