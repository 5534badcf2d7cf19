"""What part a function or a method of a tensor is, as `modules.py` says it of modules."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from verigrad.certificates.modules import Place, move
from verigrad.certificates.parts import Join, Monotone, Part, Sum

ACTIVATIONS = {F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.softplus, torch.tanh, torch.sigmoid}
ACTIVATIONS |= {"relu", "tanh", "sigmoid"}
RESHAPES = {torch.flatten, "flatten", "view", "reshape"}
MOVES = {F.avg_pool2d, F.adaptive_avg_pool2d, operator.getitem, torch.mean, F.pad}
MOVES |= {"mean", "repeat", "unflatten", "contiguous"} | RESHAPES
ADDITIONS = {operator.add, torch.add, "add"}
ARITHMETIC: dict[Any, str] = {operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div"}
ARITHMETIC |= {torch.add: "add", torch.sub: "sub", torch.mul: "mul", torch.div: "div", operator.neg: "neg"}
ARITHMETIC |= {name: name for name in ("add", "sub", "mul", "div", "neg")}


def monotone_call(node: fx.Node, place: Place, like: Tensor) -> Monotone | None:
    """An activation, a pooling or a choice of entries; None for anything else.

    Args:
        like: says on which device.
    """
    function = _applied(node, place.shape)
    if node.target in ACTIVATIONS and len(node.args) == 1 and set(node.kwargs) <= {"inplace"}:
        return Monotone(function=function, l2=1.0, linf=1.0, **place.base)
    return move(function, place, like) if node.target in MOVES else None


def _applied(node: fx.Node, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """A function or method with its other arguments filled in; a size that names the batch fits any batch."""
    rest, target = node.args[1:], node.target
    kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
    if target in ("view", "reshape", "unflatten"):
        return lambda x: x.reshape(len(x), *shape)
    if isinstance(target, str):
        return lambda x: getattr(x, target)(*rest, **kwargs)
    called: Any = target
    return lambda x: called(x, *rest, **kwargs)


def scale_call(
    node: fx.Node, whence: fx.Node, values: Mapping[fx.Node, Any], one: Tensor
) -> tuple[Tensor, Tensor] | None:
    """(factor, shift) of x + c, c + x, x − c, c − x, c x, x c, x / c and −x, for a number or a weight c; or None.

    Args:
        whence: the node of x.
        values: of all nodes; c has the same for every image.
        one: 1 in float64.
    """
    kind = ARITHMETIC.get(node.target)
    if kind == "neg":
        return -one, 0 * one
    if kind is None or len(node.args) != 2 or node.kwargs:
        return None
    first = node.args[0] is whence
    if kind == "div" and not first:
        return None
    other = node.args[1 if first else 0]
    c = torch.as_tensor(values[other] if isinstance(other, fx.Node) else other).to(one)
    factor = {"add": one, "sub": one if first else -one, "mul": c, "div": 1 / c}[kind]
    return factor, {"add": c, "sub": -c if first else c}.get(kind, 0 * one)


def several_call(
    node: fx.Node, at: Mapping[fx.Node, int], parts: list[Part], name: str, shape: tuple[int, ...]
) -> Sum | Join | None:
    """x + y of the same shape, or tensors side by side; None for anything else.

    Args:
        at: the places in `parts` of the nodes that depend on the image.
    """
    if node.target is torch.cat:
        joined: Any = node.args[0]
        axis: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        axis %= len(shape) + 1
        if axis == 0 or not all(part in at for part in joined):
            return None
        return Join(name=name, inputs=tuple(at[part] for part in joined), shape=shape, axis=axis)
    if node.target not in ADDITIONS or len(node.args) != 2 or node.kwargs:
        return None
    inputs = tuple(at[part] for part in node.args if isinstance(part, fx.Node) and part in at)
    if len(inputs) != 2 or any(parts[i].shape != shape for i in inputs):
        return None
    return Sum(name=name, inputs=inputs, shape=shape)
