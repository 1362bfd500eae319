"""What can be asked of one node of a traced graph: its op's name, its module, its sizes, what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from multitl.translation.values import BATCH, Stored

OP = type(torch.ops.aten.clone.default)  # of all of ATen's, and of those that libraries register
FILLS = (
    "new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty",
    "zeros_like", "ones_like", "full_like", "empty_like",
)  # fmt: skip


def op_name(node: torch.fx.Node) -> str:
    """ "conv2d.default" for torch.ops.aten.conv2d.default, with the namespace if it is not ATen."""
    target = node.target
    if isinstance(target, OP):
        namespace, _, full = target.name().partition("::")
        name, _, overload = full.partition(".")
        return f"{name}.{overload or 'default'}" if namespace == "aten" else f"{namespace}.{name}"
    return str(getattr(target, "__name__", target))


def base_name(node: torch.fx.Node) -> str:
    """ "add" for add.Tensor and add_.Tensor."""
    return op_name(node).partition(".")[0].removesuffix("_")


def is_fill(node: torch.fx.Node) -> bool:
    """Whether only its shape depends on what it is given."""
    return base_name(node) in FILLS


def is_in_place(node: torch.fx.Node) -> bool:
    """Whether it writes into what it is given: add_, but not __and__."""
    name = op_name(node).partition(".")[0]
    return name.endswith("_") and not name.endswith("__")


def gives_tensors(node: torch.fx.Node) -> bool:
    """Whether there is a tensor in what it gives, and not sizes alone."""
    return any(isinstance(value, torch.Tensor) for value in leaves([node.meta.get("val")]))


def held_by_module(node: torch.fx.Node) -> Any:
    """What a `get_attr` node stands for: a constant, or a sub-graph."""
    value: Any = node.graph.owning_module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return Stored(as_array(value.detach())) if isinstance(value, torch.Tensor) else value


def inner_graph(node: torch.fx.Node) -> tuple[torch.fx.Graph, dict[torch.fx.Node, Any]]:
    """The sub-graph that a node stands for, and what its placeholders stand for."""
    attributes = [isinstance(argument, torch.fx.Node) and argument.op == "get_attr" for argument in node.args]
    at = attributes.index(True)
    inner = held_by_module(node.args[at]).graph
    places = [place for place in inner.nodes if place.op == "placeholder"]
    return inner, dict(zip(places, node.args[at + 1 :], strict=True))


def module_path(node: torch.fx.Node) -> str:
    """The innermost module that the node belongs to: "layer1.0.relu"."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.removeprefix("L['self']").replace("['", ".").replace("']", "").strip(".")
    return path.split("@")[0] or node.name


def plain_size(value: Any) -> Any:
    """A symbolic size as a number in which BATCH stands for the batch; anything else as it is."""
    if not isinstance(value, torch.SymInt):
        return value
    expression = value.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))


def is_batch(size: int | torch.SymInt) -> bool:
    """Whether a size is the batch or a multiple of it."""
    return size != 0 and plain_size(size) % BATCH == 0


def is_size(have: int, wanted: int | torch.SymInt) -> bool:
    """Whether an axis is as long as PyTorch's. How much a mask selects is unknown to PyTorch before it runs."""
    if free_unbacked_symbols(wanted):
        return True
    size = plain_size(wanted)
    return have == size or (have == 1 and size % BATCH == 0)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Half precision widened to float32; anything else as it is."""
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.cpu().numpy()


def leaves(value: Any) -> Iterator[Any]:
    """What nested lists and tuples hold, in order."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    else:
        yield value
