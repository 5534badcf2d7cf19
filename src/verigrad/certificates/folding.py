"""A classifier as a list of simple parts in float64, with normalisation and batch norm folded (see `parts.py`)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from verigrad.certificates.calls import RESHAPES, monotone_call, scale_call, several_call
from verigrad.certificates.modules import Place, module_part
from verigrad.certificates.parts import Conv, Linear, Monotone, Part, Parts, Scale, Source, after, ahead, evaluate
from verigrad.certificates.tracing import trace
from verigrad.core.classifier import device_of
from verigrad.core.errors import BadInput

# Rounding between a model and its parts in float64, in parts of the largest logit.
SAME = 1e-6


def fold(model: nn.Module, image: Tensor) -> Parts:
    """The parts of a model; the last one gives the logits.

    Args:
        image: (1, C, H, W), for the shapes. The model itself is not touched.

    Raises:
        BadInput: naming the part of the model that is none of those in `parts.py`.
    """
    twin = exact(model)
    graph, root, values = trace(twin, image.detach().double().to(device_of(twin)))
    with torch.no_grad():
        parts = _Folding(root, values).run(graph)
        _check(parts, model, image)
    return parts


def _check(parts: Parts, model: nn.Module, image: Tensor) -> None:
    """That the parts give the model's logits, for the image and its negative: code can do what torch.fx does not see,
    such as changing a tensor in place that is used again."""
    same = copy.deepcopy(model).double().eval()
    for x in (image.double(), 1 - image.double()):
        expected = same(x.to(device_of(same)).clone())
        apart = (evaluate(parts, x.to(expected)) - expected).abs().max()
        if bool(apart > SAME * expected.abs().max()):  # NaN is left to the certificate
            raise BadInput(
                f"The code of {type(model).__name__} cannot be followed: its steps do not give its logits. "
                "Use a certificate that asks for logits alone, such as smoothing."
            )


def exact(model: nn.Module) -> nn.Module:
    """A copy in float64 and eval mode, without gradients and without changes in place."""
    twin = copy.deepcopy(model).double().eval().requires_grad_(False)
    for module in twin.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return twin


class _Folding:
    """One walk over a graph; `at` says which part gives the value of a node."""

    def __init__(self, root: nn.Module, values: dict[fx.Node, Any]) -> None:
        self.root = root
        self.values = values
        self.parts: list[Part] = []
        self.at: dict[fx.Node, int] = {}
        self.one = torch.ones((), dtype=torch.float64, device=device_of(root))

    def run(self, graph: fx.Graph) -> Parts:
        for node in graph.nodes:
            if node.op == "placeholder" and not self.parts:
                self._add(node, Source(name="image", inputs=(), shape=self._shape(node)))
            elif node.op == "output":
                return self._ending(node.args[0])
            elif any(part in self.at for part in node.all_input_nodes) and not self._part(node):
                self._refuse(node)
        raise AssertionError("a graph ends with its output")

    def _ending(self, last: Any) -> Parts:
        if not isinstance(last, fx.Node) or last not in self.at or len(self._shape(last)) != 1:
            raise BadInput("The model must give one tensor of logits (B, classes) that depends on the images.")
        return tuple(self.parts[: self.at[last] + 1])

    def _refuse(self, node: fx.Node) -> None:
        kind = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_module":
            kind = type(self.root.get_submodule(str(node.target))).__name__
        raise BadInput(
            f"No bound is known for {kind} ({_name(node)}). Known are linear layers, convolutions, batch norm, "
            "increasing activations, pooling, sums and ODE blocks; use a certificate that asks for logits alone."
        )

    def _part(self, node: fx.Node) -> bool:
        """Adds the part that a node is, if one is known. Nodes that do not depend on the image are constants."""
        if not isinstance(self.values[node], Tensor):
            return False
        return self._module(node) if node.op == "call_module" else self._call(node)

    def _module(self, node: fx.Node) -> bool:
        module = self.root.get_submodule(str(node.target))
        if len(node.all_input_nodes) != 1:
            return False
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return self._batch_norm(node, module)
        part = module_part(module, self._place(node, node.all_input_nodes[0]))
        if isinstance(module, nn.Flatten) and isinstance(part, Monotone):
            self._reshaped(node, part)
        elif part is not None:
            self._add(node, self._with_scale(node, part) if isinstance(part, Linear | Conv) else part)
        return part is not None

    def _reshaped(self, node: fx.Node, part: Monotone) -> None:
        """Adds a new shape for the same entries; a scale right before it comes after it, next to a linear map."""
        whence, place = node.all_input_nodes[0], part.inputs[0]
        before = self.parts[place]
        if not isinstance(before, Scale) or len(whence.users) > 1:
            self._add(node, part)
            return
        spread = self.one.expand(1, *before.shape)
        factor, shift = (part.function(value * spread) for value in (before.factor, before.shift))
        self.parts[place] = replace(part, inputs=before.inputs)
        self._add(node, replace(before, inputs=(place,), shape=part.shape, factor=factor, shift=shift))

    def _with_scale(self, node: fx.Node, part: Linear | Conv) -> Linear | Conv:
        """A linear map; a scale right before it gives it its factor."""
        whence = node.all_input_nodes[0]
        before = self.parts[self.at[whence]]
        groups = part.groups if isinstance(part, Conv) else 1
        if isinstance(before, Scale) and len(whence.users) == 1 and (split := ahead(before, part.weight, groups)):
            self.parts[self.at[whence]], weight = split
            return replace(part, weight=weight)
        return part

    def _batch_norm(self, node: fx.Node, module: nn.BatchNorm1d | nn.BatchNorm2d) -> bool:
        if module.running_mean is None or module.running_var is None:
            return False
        factor = (module.running_var + module.eps).rsqrt()
        factor = factor if module.weight is None else factor * module.weight
        shift = -module.running_mean * factor
        shift = shift if module.bias is None else shift + module.bias
        spread = (1, -1, *[1] * (len(self._shape(node)) - 1))
        return self._scale(node, node.all_input_nodes[0], factor.reshape(spread), shift.reshape(spread))

    def _scale(self, node: fx.Node, whence: fx.Node, factor: Tensor, shift: Tensor) -> bool:
        """Adds a scale, or gives it to the linear map or the scale before it."""
        place, shape = self.at[whence], self._shape(node)
        before, alone = self.parts[place], len(whence.users) == 1
        if before.shape != shape or not bool(torch.isfinite(factor).all()):
            return False
        if alone and isinstance(before, Linear | Conv) and (taken := after(before, factor, shift, _name(node))):
            self.parts[place], self.at[node] = taken, place
        elif alone and isinstance(before, Scale):
            both = replace(before, factor=factor * before.factor, shift=factor * before.shift + shift)
            self.parts[place], self.at[node] = both, place
        else:
            self._add(node, Scale(name=_name(node), inputs=(place,), shape=shape, factor=factor, shift=shift))
        return True

    def _call(self, node: fx.Node) -> bool:
        """A function, or a method of a tensor."""
        inputs = [part for part in node.all_input_nodes if part in self.at]
        if len(inputs) > 1 or node.target is torch.cat:
            part = several_call(node, self.at, self.parts, _name(node), self._shape(node))
        else:
            if scale := scale_call(node, inputs[0], self.values, self.one):
                return self._scale(node, inputs[0], *scale)
            part = monotone_call(node, self._place(node, inputs[0]), self.one) if node.args[0] is inputs[0] else None
        if isinstance(part, Monotone) and node.target in RESHAPES:
            self._reshaped(node, part)
        elif part is not None:
            self._add(node, part)
        return part is not None

    def _place(self, node: fx.Node, whence: fx.Node) -> Place:
        place = self.at[whence]
        return Place(_name(node), place, self.parts[place].shape, self._shape(node))

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        return tuple(self.values[node].shape[1:])

    def _add(self, node: fx.Node, part: Part) -> None:
        self.at[node] = len(self.parts)
        self.parts.append(part)


def _name(node: fx.Node) -> str:
    return str(node.target).removeprefix("0.") if node.op == "call_module" else node.name
