"""What a node computes from constants alone, PyTorch computes here and now."""

from __future__ import annotations

import operator
from typing import Any

import torch

from multitl.translation.values import BATCH, Stored
from multitl_torch.fx_nodes import OP, base_name, is_batch, is_fill
from multitl_torch.insides import arguments_of


def computed(node: torch.fx.Node, arguments: list) -> Any:
    """What PyTorch makes of constants. Sizes that depend on the batch become 1, to be broadcast later."""
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    if not isinstance(node.target, OP):
        return node.target(*arguments)
    if is_fill(node):
        return filled(node, arguments)
    tensors = [_as_torch(argument) for argument in arguments]
    schema = arguments_of(node.target)
    positional = [value for value, one in zip(tensors, schema, strict=True) if not one.kwarg_only]
    named = {one.name: value for value, one in zip(tensors, schema, strict=True) if one.kwarg_only}
    with torch.no_grad():
        return _as_stored(node.target(*positional, **named))


def folded(node: torch.fx.Node, arguments: list) -> Any:
    """What PyTorch makes of weights, for a layer to hold: without a name, since no tensor of the original is it."""
    return _trained(computed(node, arguments))


def _trained(value: Any) -> Any:
    if isinstance(value, Stored):
        return Stored(value.array, trains=True)
    return [_trained(one) for one in value] if isinstance(value, list | tuple) else value


def filled(node: torch.fx.Node, arguments: list) -> Stored:
    """What zeros, ones, full and the like give: only its shape may depend on the image."""
    value = node.meta["val"]
    shape = [1 if is_batch(size) else int(size) for size in value.shape]
    name = base_name(node)
    number: float = {"ones": 1, "new_ones": 1, "ones_like": 1}.get(name, 0)
    if "full" in name:
        number = next(argument for argument in arguments[1:] if isinstance(argument, int | float))
    return Stored(torch.full(shape, number, dtype=value.dtype).numpy())


def _as_torch(value: Any) -> Any:
    if isinstance(value, Stored):
        return torch.from_numpy(value.array)  # shares memory, so that writes into views are seen
    if isinstance(value, list):
        return [_as_torch(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and value and value % BATCH == 0:
        return value // BATCH
    return value


def _as_stored(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Stored(value.detach().numpy())
    return [_as_stored(one) for one in value] if isinstance(value, list | tuple) else value
