"""The graph of a classifier, traced by torch.fx along one image, so that code that asks for shapes can be followed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from verigrad.core.errors import BadInput
from verigrad.models.faults import told
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.models.normalised import Normalised
from verigrad.models.ode_block import ODEBlock

LEAVES = (ODEBlock, AntisymmetricConv2d)
"""Modules that are one step of the graph, besides those of torch.nn."""


class Seen(fx.Proxy):
    """A value of the graph that knows what it is for the one image."""

    value: Any

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        return self.value.device

    @property
    def ndim(self) -> int:
        return self.value.dim()

    def dim(self) -> int:
        return self.value.dim()

    def size(self, dim: int | None = None) -> Any:
        return self.value.size() if dim is None else self.value.size(dim)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return iter([self[index] for index in range(len(self.value))])


def _values(arguments: Any) -> Any:
    return fx.node.map_aggregate(arguments, lambda part: part.value if isinstance(part, Seen) else part)


class Tracer(fx.Tracer):
    """Records what a classifier does to one image, step by step, and the shape of each value.

    Args:
        image: (1, C, H, W).
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image
        self.shapes: dict[fx.Node, torch.Size] = {}

    def proxy(self, node: fx.Node) -> Seen:
        return Seen(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(m, Normalised):
            return m.module((args[0] - m.mean) / m.std)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        made = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        made.value = self._value(kind, target, _values(args), _values(kwargs))
        if isinstance(made.value, Tensor):
            self.shapes[made.node] = made.value.shape
        return made

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.image
        if kind == "get_attr":
            return constant(self.root, target)
        if kind == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs) if kind == "call_function" else args[0]


def constant(root: nn.Module, target: str) -> Tensor:
    """The weight or buffer of that dotted name."""
    found: Any = root
    for name in target.split("."):
        found = getattr(found, name)
    return found


def trace(model: nn.Module, image: Tensor) -> tuple[fx.Graph, nn.Module, dict[fx.Node, torch.Size]]:
    """The graph of a model in eval mode, the module whose names it uses, and the shape of each node for one image.

    Args:
        image: (1, C, H, W), of the dtype of the weights.

    Raises:
        BadInput: the model's code cannot be followed.
    """
    root = nn.Sequential(model)  # so that the model itself may be a leaf
    tracer = Tracer(image)
    try:
        with torch.no_grad():
            graph = tracer.trace(root)
    except BadInput:
        raise
    except Exception as fault:
        raise BadInput(
            f"The code of {type(model).__name__} cannot be followed step by step: {told(fault)} "
            "Use a certificate that asks for logits alone, such as smoothing."
        ) from fault
    return graph, root, tracer.shapes
