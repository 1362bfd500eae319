"""A traced program without what does nothing: conversions to the type a tensor has, orders of axes that are undone.

Keras asks each input of each operation for its type, and its images have their channels last, where PyTorch's kernels
name them first: of the 740 lines of MobileNet 0.25's training step 400 do nothing, each for some microseconds, and most
of them have a counterpart in the backward pass. Kernels get the same memory as before; only views are left out.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
CONVERSIONS = {aten.to.dtype, aten.to.dtype_layout}
PERMUTE = aten.permute.default
POINTWISE = {  # of one tensor, or of tensors of equal shapes
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.leaky_relu.default,
    aten.elu.default, aten.silu.default, aten.gelu.default, aten.sigmoid.default, aten.tanh.default,
    aten.hardsigmoid.default, aten.hardswish.default, aten.to.dtype, aten.detach.default,
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
}  # fmt: skip


def simplify(program: GraphModule) -> GraphModule:
    """The same values, from fewer nodes; changes the program that is given."""
    for node in list(program.graph.nodes):
        if node.op == "get_attr":  # of a weight PyTorch 2.6 does not note it
            node.meta.setdefault("val", operator.attrgetter(node.target)(program))
        elif node.target in CONVERSIONS and not _is_plain(node):
            continue
        elif node.target in CONVERSIONS and _is_idle(node):
            node.replace_all_uses_with(node.args[0])
        elif node.target == PERMUTE:
            _join(node)
        elif node.target in POINTWISE:
            _sink(node)
    program.graph.eliminate_dead_code()
    program.recompile()
    return program


def _is_plain(conversion: Node) -> bool:
    """Whether it asks for a type alone: neither for a copy nor for an order in memory."""
    return len(conversion.args) <= 2 and conversion.kwargs.keys() <= {"dtype", "layout", "device"}


def _is_idle(conversion: Node) -> bool:
    """Whether it gives the tensor that it gets."""
    before, after = (node.meta["val"] for node in (conversion.args[0], conversion))
    return (before.dtype, before.device, before.layout) == (after.dtype, after.device, after.layout)


def _join(permute: Node) -> None:
    """With the permute before it, if there is one."""
    before, order = permute.args[0], [axis % len(permute.args[1]) for axis in permute.args[1]]
    if before.target == PERMUTE:
        inner, first = before.args
        before, order = inner, [first[axis] for axis in order]
    permute.args = (before, order)
    if order == list(range(len(order))):
        permute.replace_all_uses_with(before)


def _sink(node: Node) -> None:
    """permute -> pointwise becomes pointwise -> permute, which may meet its inverse."""
    tensors = [one for one in node.args if isinstance(one, Node)]
    orders = {tuple(one.args[1]) if one.target == PERMUTE else () for one in tensors}
    shapes = {one.meta["val"].shape for one in tensors}
    order = orders.pop()
    if orders or not order or len(shapes) > 1:
        return
    with node.graph.inserting_before(node):
        args = [one.args[0] if isinstance(one, Node) else one for one in node.args]
        moved = node.graph.call_function(node.target, tuple(args), node.kwargs)
        moved.meta["val"] = node.meta["val"].permute(_inverse(order))
        permute = node.graph.call_function(PERMUTE, (moved, list(order)))
        permute.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(permute)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)
