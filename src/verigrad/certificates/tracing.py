"""The graph of a classifier, traced by torch.fx along one image, so that code that asks for shapes can be followed."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from verigrad.core.errors import BadInput
from verigrad.models.faults import told
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.models.networks.resnext import SmoothReLU
from verigrad.models.normalised import Normalised
from verigrad.models.ode_block import ODEBlock

LEAVES = (ODEBlock, AntisymmetricConv2d, SmoothReLU)
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
        whole: Any = self
        return iter([whole[index] for index in range(len(self))])


def _values(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda part: part.value if isinstance(part, Seen) else part)


class Tracer(fx.Tracer):
    """Records what a classifier does to one image, step by step, and each value.

    Args:
        image: (1, C, H, W).
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image
        self.values: dict[fx.Node, Any] = {}
        # While a step is computed for the image: torch.fx follows every call of a module, and must not then.
        self.computing = False

    def proxy(self, node: fx.Node) -> Seen:
        return Seen(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LEAVES or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if self.computing:
            return forward(*args, **kwargs)
        if isinstance(m, Normalised):
            return m.module((args[0] - m.mean) / m.std)
        return super().call_module(m, forward, args, kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        made: Any = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        self.computing = True
        made.value = self._value(kind, target, _values(args), _values(kwargs))
        self.computing = False
        self.values[made.node] = made.value
        return made

    def _value(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.image
        if kind == "get_attr":
            return operator.attrgetter(target)(self.root)
        if kind == "call_module":
            return self.root.get_submodule(target)(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return target(*args, **kwargs) if kind == "call_function" else args[0]


def trace(model: nn.Module, image: Tensor) -> tuple[fx.Graph, nn.Module, dict[fx.Node, Any]]:
    """The graph of a model in eval mode, the module whose names it uses, and the value of each node for one image.

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
    # Buffers and tensors made on the way get a node without a value.
    weights = {node: operator.attrgetter(str(node.target))(root) for node in graph.nodes if node.op == "get_attr"}
    return graph, root, tracer.values | weights
