"""TensorFlow runs a flat graph, or one operation of it: only operations that were vetted before come here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from multitl.translation.op_tables import Unsupported
from multitl_tensorflow.flattening import PIXELS, STORED, Graph, Node
from multitl_tensorflow.operations import attribute, op_definition

MOST_COMPUTED = 2**28  # bytes of what is computed from constants

tf1 = tf.compat.v1


def run_graph(graph: Graph, images: np.ndarray, fetches: Sequence[str]) -> list[np.ndarray]:
    """The first outputs of the nodes `fetches`, or their output of that number ("name:1")."""
    names = {name: f"n{number}" for number, name in enumerate(graph.nodes)}
    definition = tf1.GraphDef()
    feeds = {}
    for name, node in graph.nodes.items():
        if node.op in (PIXELS, STORED):
            value = images if node.op == PIXELS else graph.stored[name].array
            _add_placeholder(definition, names[name], value)
            feeds[f"{names[name]}:0"] = value
        else:
            _add_node(definition, names[name], node, [f"{names[one.node]}:{one.output}" for one in node.inputs])
    with tf.Graph().as_default() as fresh:
        tf.import_graph_def(definition, name="")
        plain = [fetch if fetch in names else fetch.rpartition(":")[0] for fetch in fetches]
        outputs = ["0" if fetch in names else fetch.rpartition(":")[2] for fetch in fetches]
        with tf1.Session(graph=fresh, config=_as_written()) as session:
            return session.run([f"{names[one]}:{place}" for one, place in zip(plain, outputs, strict=True)], feeds)


def compute(node: Node, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What one operation makes of constants. Raises Unsupported if the result is large, or its size unknown before."""
    definition = tf1.GraphDef()
    for place, array in enumerate(_as_declared(node, arrays)):
        constant = definition.node.add(name=f"i{place}", op="Const")
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
        constant.attr["dtype"].type = tf.as_dtype(array.dtype).as_datatype_enum
    _add_node(definition, "node", node, [f"i{place}:0" for place in range(len(arrays))])
    with tf.Graph().as_default() as fresh:
        tf.import_graph_def(definition, name="")
        outputs = fresh.get_operation_by_name("node").outputs
        sizes = [_bytes(output) for output in outputs]
        if any(size is None or size > MOST_COMPUTED for size in sizes):
            raise Unsupported("a constant of unknown or enormous size")
        with tf1.Session(graph=fresh, config=_as_written()) as session:
            return session.run(outputs)


def _as_written() -> Any:
    """Without TensorFlow's optimiser, which fuses grouped convolutions on the CPU into an op that cannot run them."""
    config = tf1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def _as_declared(node: Node, arrays: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Whole numbers as the op wants them, of 32 or 64 bits: sizes are kept in 64."""
    declared: list[int] = []
    for one in op_definition(node.op).input_arg:
        kind = one.type or attribute(node.proto, one.type_attr).type
        declared += [kind] * (attribute(node.proto, one.number_attr).i if one.number_attr else 1)
    for array, kind in zip(arrays, declared, strict=True):
        wanted = tf.as_dtype(kind)
        yield array.astype(wanted.as_numpy_dtype) if array.dtype.kind == "i" and wanted.is_integer else array


def _bytes(tensor: tf.Tensor) -> int | None:
    sizes = tensor.shape.as_list() if tensor.shape.rank is not None else [None]
    return None if None in sizes else math.prod(sizes) * tensor.dtype.size


def _add_placeholder(definition: Any, name: str, value: np.ndarray) -> None:
    placeholder = definition.node.add(name=name, op="Placeholder")
    placeholder.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    placeholder.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())


def _add_node(definition: Any, name: str, node: Node, inputs: Iterable[str]) -> None:
    added = definition.node.add(name=name, op=node.op, input=inputs)
    for key, value in _attributes(node.proto.attr).items():
        added.attr[key].CopyFrom(value)


def _attributes(attributes: Mapping) -> dict:
    """Those of the operation itself, without hints to TensorFlow where and how to run it."""
    return {key: value for key, value in attributes.items() if not key.startswith("_")}
