"""Graphs in which the batch size stands as a number, as `x.view(int(x.size(0)), -1)` leaves it there.

Nothing in one such graph tells a batch of 3 from a kernel of 3. Traced at two batch sizes, what scales with the batch
is the batch, and everything else is equal in both.
"""

from __future__ import annotations

from typing import Any

import torch

from multitl.translation.values import BATCH
from multitl_torch.fx_nodes import OP, held_by_module, is_batch, leaves, op_name
from multitl_torch.insides import arguments_of

SIZES = (3, 5)  # primes, so that no other size is in their ratio; 0, 1 and 2 graphs may treat specially


class Varies(Exception):  # noqa: N818  (fx_graphs.py makes of it what a user meets)
    """Raised where two graphs differ in something that is no multiple of the batch size; its text says in what."""


def name_the_batch(graph: torch.fx.Graph, other: torch.fx.Graph) -> None:
    """Every number of `graph`, traced with SIZES[0] images, that in `other`, with SIZES[1], is as many times the batch
    becomes that multiple of BATCH: in arguments and in shapes, and in the graphs inside.

    Raises Varies, also for an output that has not the batch as one of its axes.
    """
    if len(graph.nodes) != len(other.nodes):
        raise Varies(f"{len(graph.nodes)} operations for {SIZES[0]} images, {len(other.nodes)} for {SIZES[1]}")
    for node, twin in zip(graph.nodes, other.nodes, strict=True):
        if (node.op, op_name(node), node.name) != (twin.op, op_name(twin), twin.name):
            raise Varies(f"{op_name(node)} for {SIZES[0]} images, {op_name(twin)} for {SIZES[1]}")
        if node.op == "get_attr" and isinstance(held_by_module(node), torch.fx.GraphModule):
            name_the_batch(held_by_module(node).graph, held_by_module(twin).graph)
            continue
        node.args, node.kwargs = _named(node.args, twin.args, node), _named(node.kwargs, twin.kwargs, node)
        _insist_on_sizes(node)
        node.meta["val"] = _named(node.meta.get("val"), twin.meta.get("val"), node)


def insist_on_the_batch(graph: torch.fx.Graph) -> None:
    """Raises Varies for an output without an axis that is the batch."""
    outputs = next(node for node in graph.nodes if node.op == "output")
    for node in leaves(list(outputs.args)):
        if isinstance(node, torch.fx.Node) and BATCH not in node.meta["val"].shape:
            raise Varies(f"the output {node.name} has not the batch as one of its axes")


def _insist_on_sizes(node: torch.fx.Node) -> None:
    """A size may be the batch; a number that is computed with, as in a mean over all images, may not."""
    if isinstance(node.target, OP):
        kinds = {one.name: str(one.type) for one in arguments_of(node.target)}
        for (name, kind), argument in zip(kinds.items(), node.args, strict=False):
            if "int" not in kind and any(type(one) is int and is_batch(one) for one in leaves([argument])):
                raise Varies(f"{op_name(node)} with the number of images as its {name}")


def _named(value: Any, twin: Any, node: torch.fx.Node) -> Any:
    """A value of the first graph beside the second's, with BATCH for what scales."""
    if isinstance(value, list | tuple):
        return type(value)(_named(one, two, node) for one, two in zip(value, twin, strict=True))
    if isinstance(value, dict):
        return {key: _named(one, twin[key], node) for key, one in value.items()}
    if isinstance(value, torch.Tensor):
        return torch.empty(_named(tuple(value.shape), tuple(twin.shape), node), dtype=value.dtype, device="meta")
    if isinstance(value, torch.fx.Node) or value == twin or (value != value and twin != twin):
        return value
    times, rest = divmod(value, SIZES[0]) if type(value) is int else (0, 1)
    if rest or times * SIZES[1] != twin:
        raise Varies(f"{op_name(node)} with {value} for {SIZES[0]} images, with {twin} for {SIZES[1]}")
    return times * BATCH
