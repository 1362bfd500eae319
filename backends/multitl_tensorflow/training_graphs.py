"""What a network does in training only, read from the graph for training: momenta and dropout.

A graph for evaluation shows neither. Both are found by how TensorFlow and Keras write them:
https://github.com/keras-team/tf-keras/blob/master/tf_keras/layers/normalization/batch_normalization.py and
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/python/ops/nn_ops.py (dropout).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from multitl.errors import WeightsError
from multitl.translation.values import Stored
from multitl_tensorflow.flattening import Node, Ref, flatten_training
from multitl_tensorflow.operations import Dropped, Training, attribute, scope_name, shortest
from multitl_tensorflow.signatures import Module

MOVING = ("AssignSubVariableOp", "AssignSub")
NORMALISATIONS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
RANDOM = ("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")


def read_training(module: Module) -> Training:
    """What the module's graph for training tells; nothing if it has none, or one that cannot be followed."""
    try:
        nodes, stored = flatten_training(module)
    except WeightsError:
        return Training()
    return Training(dict(_momenta(nodes, stored)), dict(_dropouts(nodes, stored)))


def _momenta(nodes: Mapping[str, Node], stored: Mapping[str, Stored]) -> Iterator[tuple[str, float]]:
    """Moving mean or variance -> momentum; the newest TensorFlow has it in the op, others subtract a share."""
    for node in nodes.values():
        if node.op in NORMALISATIONS and len(node.inputs) > 3 and node.inputs[3].node in stored:
            share = float(attribute(node.proto, "exponential_avg_factor").f)
            if 0 < share < 1:
                yield stored[node.inputs[3].node].name, shortest(1 - share)
        if node.op in MOVING and node.inputs[0].node in stored:
            product = nodes[node.inputs[1].node]
            numbers = [number for one in product.inputs if (number := _number(nodes, stored, one)) is not None]
            if product.op == "Mul" and len(numbers) == 1 and 0 < numbers[0] < 1:
                yield stored[node.inputs[0].node].name, shortest(1 - numbers[0])


def _dropouts(nodes: Mapping[str, Node], stored: Mapping[str, Stored]) -> Iterator[tuple[str, Dropped]]:
    """Scope -> dropout: random >= rate, or floor(keep + random) as TensorFlow 1 had it."""
    for node in nodes.values():
        source = nodes[node.inputs[0].node] if node.inputs else node
        if node.op == "GreaterEqual" and (noise := _noise(nodes, node.inputs[0])):
            rate = _number(nodes, stored, node.inputs[1])
        elif node.op == "Floor" and source.op in ("Add", "AddV2") and (noise := _noise(nodes, source.inputs[1])):
            keep = _number(nodes, stored, source.inputs[0])
            rate = None if keep is None else 1 - keep
        else:
            continue
        if rate is not None and 0 < rate < 1:
            scope = node.name.rpartition("/")[0].removesuffix("/dropout")
            yield scope_name(scope), Dropped(shortest(rate), _spread(nodes, stored, noise.inputs[0]))


def _noise(nodes: Mapping[str, Node], ref: Ref) -> Node | None:
    """The random numbers behind a value, if they are only scaled on the way."""
    node = nodes[ref.node]
    while node.op in ("Mul", "Add", "AddV2") and node.inputs:
        node = nodes[node.inputs[0].node]
    return node if node.op in RANDOM else None


def _spread(nodes: Mapping[str, Node], stored: Mapping[str, Stored], shape: Ref) -> tuple[bool, ...]:
    """For each axis whether it is longer than 1; empty for a shape that is that of the values themselves."""
    if shape.node in stored:
        return tuple(bool(size != 1) for size in np.ravel(stored[shape.node].array))
    node = nodes[shape.node]
    if node.op != "Pack":
        return ()
    return tuple(_number(nodes, stored, one) != 1 for one in node.inputs)


def _number(nodes: Mapping[str, Node], stored: Mapping[str, Stored], ref: Ref) -> float | None:
    """A number that is known, as it is or as 1 - decay."""
    found = stored.get(ref.node)
    if found is not None:
        return float(found.array) if found.array.ndim == 0 and not found.name else None
    if nodes[ref.node].op != "Sub":
        return None
    a, b = (stored.get(one.node) for one in nodes[ref.node].inputs)
    known = a is not None and b is not None and not (a.name or b.name or a.rank or b.rank)
    return float(a.array - b.array) if known and a is not None and b is not None else None
