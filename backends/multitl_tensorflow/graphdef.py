"""A SavedModel that classifies images -> an ordinary Keras functional model.

Read `translate` top to bottom. The module's graph is flattened (flattening.py), groups of nodes that are one layer are
put together (fusing.py), and each node is translated by the function that the op table names. What a node computes from
constants alone is computed here and now, with TensorFlow, by operations that are known to do nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from multitl.contracts import Translation
from multitl.errors import TranslationError
from multitl.translation.building import Builder
from multitl.translation.layouts import in_order
from multitl.translation.op_tables import OpTable, Unsupported, refuse_graph
from multitl.translation.values import BATCH, Activation, Stored
from multitl_tensorflow import (
    graphdef_ops_convolution,
    graphdef_ops_elementwise,
    graphdef_ops_linear,
    graphdef_ops_shape,
    graphdef_ops_sizes,
)
from multitl_tensorflow.damage import DAMAGED, damage_refused
from multitl_tensorflow.flattening import MOST_BYTES, OTHER, PIXELS, STORED, Graph, Node, Ref, flatten
from multitl_tensorflow.fusing import fuse, pruned
from multitl_tensorflow.graphdef_ops_sizes import as_tile
from multitl_tensorflow.operations import Operation, Training, scope_name
from multitl_tensorflow.running import compute
from multitl_tensorflow.signatures import Module
from multitl_tensorflow.training_graphs import read_training

OPS = OpTable(
    "tensorflow",
    graphdef_ops_convolution.ops,
    graphdef_ops_elementwise.ops,
    graphdef_ops_linear.ops,
    graphdef_ops_shape.ops,
    graphdef_ops_sizes.ops,
)
SIZES = graphdef_ops_sizes.sizes
PURE = frozenset({
    "All", "Any", "BroadcastArgs", "Ceil", "Cumsum", "Equal", "Fill", "FloorDiv", "FloorMod", "Greater",
    "GreaterEqual", "Less", "LessEqual", "LinSpace", "LogicalAnd", "LogicalNot", "LogicalOr", "NotEqual", "OneHot",
    "Prod", "Range", "Round",
})  # fmt: skip
TAKE_STORED = frozenset({
    "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "Maximum", "Minimum", "Pow", "SquaredDifference", "Cast",
    "Identity", "IdentityN", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape", "Select", "SelectV2",
    "ConcatV2", "Concat", "Pack", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Split",
    "Shape", "ShapeN", "Size", "Rank",
})  # fmt: skip
REPEATED = frozenset({"Fill", "BroadcastTo", "Tile"})  # of constants: once for each image of the batch, if need be
HALVES = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)
SIZE_IF_FREE = 224  # of images, where a module takes any
MOST_PIXELS = 2**22  # of an image; a module may claim any, and is tried on twelve


@dataclass(frozen=True, eq=False)
class Translatable:
    """A module whose operations are all known. `graph` is as TensorFlow has it, `fused` what is translated."""

    graph: Graph
    fused: Graph
    training: Training
    state_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


def prepare(module: Module, image_size: int = 0, ops: OpTable = OPS) -> Translatable:
    """Flatten and check a module. image_size: where the module takes any; 0 for SIZE_IF_FREE.

    Raises TranslationError with the list of all operations that have no translation.
    """
    with damage_refused(module.what):
        graph = _up_to_logits(flatten(module))
    missing = missing_ops(graph, ops)
    if missing:
        raise refuse_graph(module.what, missing)
    if not graph.pixels:
        raise TranslationError(
            f"{module.what} gives the same whatever the image.",
            expected="an output that depends on the images",
            received="a graph of constants",
            fix="choose another module",
        )
    shape = image_shape(graph, image_size)
    with damage_refused(module.what):
        return Translatable(graph, fuse(graph), read_training(module), tuple(module.variables), shape)


def _up_to_logits(graph: Graph) -> Graph:
    """Without a softmax at the end: a classifier is judged, and trained, by its logits."""
    output = graph.output
    while graph.nodes[output.node].op == "Identity":
        output = graph.nodes[output.node].inputs[0]
    node = graph.nodes[output.node]
    return pruned(replace(graph, output=node.inputs[0])) if node.op == "Softmax" else graph


def translate(prepared: Translatable, ops: OpTable = OPS) -> Translation:
    """Rebuild a network from stock Keras layers, weights included.

    The model's input is what the module's is. Training behaviour comes along as far as the file shows it: dropout,
    stochastic depth, and batch normalisation with its momentum. Raises TranslationError.
    """
    return build(prepared, ops)[0]


def takes_any_size(module: Module) -> bool:
    """Whether a module takes images of more than one height and width."""
    sizes = module.entry.images.shape if module.entry.images else None
    return sizes is None or None in sizes[1:3]


def with_weights(prepared: Translatable, tensors: Mapping[str, np.ndarray]) -> Translatable:
    """The same network with other values of some weights, by their names."""
    new = {leaf: tensors[one.name] for leaf, one in prepared.fused.stored.items() if one.name in tensors}

    def replaced(graph: Graph) -> Graph:
        stored = {leaf: replace(one, array=new.get(leaf, one.array)) for leaf, one in graph.stored.items()}
        return replace(graph, stored=stored)

    return replace(prepared, graph=replaced(prepared.graph), fused=replaced(prepared.fused))


def random_weights(prepared: Translatable, seed: int = 0) -> dict[str, np.ndarray]:
    """Every weight drawn anew with its own mean and deviation; what is nowhere negative stays so, such as variances."""
    random = np.random.default_rng(seed)
    found = {}
    for one in prepared.fused.stored.values():
        if one.name and one.array.dtype.kind == "f" and one.array.size:
            drawn = random.normal(one.array.mean(), one.array.std(), one.shape)
            found[one.name] = (np.abs(drawn) if one.array.min() >= 0 else drawn).astype(one.array.dtype)
    return found


def image_shape(graph: Graph, image_size: int) -> tuple[int, int, int]:
    """Height, width and channels of the Keras model's input. Raises TranslationError for images that are enormous."""
    sizes = graph.images.shape or (None,) * 4
    free = image_size or SIZE_IF_FREE
    height, width, channels = sizes[1] or free, sizes[2] or free, sizes[3] or 3
    if image_size and image_size not in (height, width):
        raise TranslationError(
            f"{graph.what} takes images of {height} x {width} pixels only.",
            expected=f"image_size = {height}",
            received=f"image_size = {image_size}",
            fix="leave --image-size out",
        )
    if height * width * channels > 3 * MOST_PIXELS:
        raise TranslationError(
            f"{graph.what} takes images of {height} x {width} x {channels} numbers.",
            expected=f"images of at most {MOST_PIXELS:,} pixels",
            received=f"{height * width:,} pixels",
            fix="choose another module",
        )
    return height, width, channels


def missing_ops(graph: Graph, ops: OpTable) -> dict[str, list[str]]:
    """Op -> names of its nodes, for ops that are not known to be pure, or compute in half precision."""
    missing = {op: list(names) for op, names in graph.refused.items()}
    for node in graph.nodes.values():
        if node.op in (PIXELS, STORED, OTHER):
            continue
        if node.op not in ops and node.op not in SIZES and node.op not in PURE:
            missing.setdefault(node.op, []).append(node.name)
        elif "T" in node.proto.attr and node.proto.attr["T"].type in HALVES:
            missing.setdefault(f"{node.op} in half precision", []).append(node.name)
    return missing


def build(prepared: Translatable, ops: OpTable) -> tuple[Translation, dict[str, Activation]]:
    """The Keras model, and the value that each node of the graph computes, by name."""
    graph = prepared.fused
    pixels = keras.Input(prepared.image_shape, name="pixels")
    walk = _Walk(Builder(pixels), ops, prepared)
    outputs = walk.run(graph, Activation(pixels, in_order(4)))
    if walk.refused or outputs is None:
        raise refuse_graph(graph.what, walk.refused) from walk.cause
    translation = walk.build.finish([outputs], keras_name(graph.what), prepared.state_names)
    return translation, walk.computed


def keras_name(what: str) -> str:
    """A model's name of letters that every exporter takes."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in what).strip("_").lower()
    return name[-60:].strip("_") or "module"


class _Walk:
    """Translates node after node. What has no translation is noted in `refused`, so that one error can list it all."""

    def __init__(self, builder: Builder, ops: OpTable, prepared: Translatable) -> None:
        self.build, self.ops, self.training = builder, ops, prepared.training
        self.values: dict[str, Any] = {}
        self.computed: dict[str, Activation] = {}
        self.refused: dict[str, list[str]] = {}
        self.cause: Exception | None = None
        self.bytes = 0  # of what was computed from constants

    def run(self, graph: Graph, pixels: Activation) -> Activation | None:
        positions = {name: position for position, name in enumerate(graph.nodes)}
        self.values |= graph.stored
        for name, node in graph.nodes.items():
            if node.op == PIXELS:
                self.values[name] = pixels
            elif node.op != STORED:
                self.values[name] = value = self._node(_shallow_first(node, positions))
                first = value[0] if isinstance(value, list) else value
                if isinstance(first, Activation):
                    self.computed[name] = first
        output = self._value(graph.output)
        return None if output is None else self.build.value(output)

    def _value(self, ref: Ref) -> Any:
        value = self.values[ref.node]
        if not isinstance(value, list):
            return value if ref.output == 0 else None
        return value[ref.output] if ref.output < len(value) else None

    def _node(self, node: Node) -> Any:
        arguments = [self._value(ref) for ref in node.inputs]
        if any(argument is None for argument in arguments):
            if all(self.values[ref.node] is not None for ref in node.inputs):
                self.refused.setdefault(f"a further output, read by {node.op}", []).append(node.name)
            return None  # follows a node that was refused
        self.build.path = scope_name(node.name)
        try:
            return self._translated(node, arguments)
        except Unsupported as refusal:
            reason = str(refusal)
        except DAMAGED as error:  # shapes that do not fit together, say
            self.cause, reason = error, f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        self.refused.setdefault(f"{node.op} ({reason})", []).append(node.name)
        return None

    def _translated(self, node: Node, arguments: list) -> Any:
        operation = Operation(node.op, node.name, node.proto, self.training)
        is_known = all(isinstance(value, Stored) and not value.name for value in arguments)
        if is_known and node.op not in ("Shape", "ShapeN", "Size", "Rank"):
            return self._counted(_computed(operation, node, [value.array for value in arguments]))
        if node.op not in self.ops:
            raise Unsupported("of something that depends on the image or a weight")
        if arguments and isinstance(arguments[0], Stored) and node.op not in TAKE_STORED:
            arguments[0] = self.build.value(arguments[0])  # a weight that is computed with
        return self.ops[node.op](self.build, operation, *arguments)

    def _counted(self, value: Any) -> Any:
        """A module may not fill the memory with many constants that are large, but not enormous."""
        self.bytes += sum(one.array.nbytes for one in (value if isinstance(value, list) else [value]))
        if self.bytes > MOST_BYTES:
            raise Unsupported(f"constants of more than {MOST_BYTES} bytes")
        return value


def _shallow_first(node: Node, positions: Mapping[str, int]) -> Node:
    """Of a sum, the operand that was computed earlier comes first.

    Keras walks a model's graph recursively, first operands first, one Python frame a node; along the shortcuts of a
    residual network the way is short.
    """
    if node.op not in ("Add", "AddV2") or len(node.inputs) != 2:
        return node
    inputs = sorted(node.inputs, key=lambda ref: positions[ref.node])
    return Node(node.name, node.op, tuple(inputs), node.proto)


def _computed(operation: Operation, node: Node, arrays: list[np.ndarray]) -> Any:
    """What follows from constants: sizes that hold the batch by numpy in 64 bits, all else by TensorFlow."""
    has_batch = [_has_batch(array) for array in arrays]
    if any(has_batch) and node.op in REPEATED:
        arrays = [as_tile(array) if has else array for array, has in zip(arrays, has_batch, strict=True)]
    elif any(has_batch):
        is_float = node.op == "Cast" and not tf.as_dtype(operation.dtype("DstT")).is_integer
        if node.op not in SIZES or is_float or not all(array.dtype.kind == "i" for array in arrays):
            raise Unsupported("a number that depends on the size of the batch")
        value = SIZES[node.op](operation, *(array.astype("int64") for array in arrays))
        return [Stored(np.asarray(one)) for one in value] if isinstance(value, list) else Stored(np.asarray(value))
    results = compute(node, arrays)
    return Stored(results[0]) if len(results) == 1 else [Stored(one) for one in results]


def _has_batch(array: np.ndarray) -> bool:
    return array.dtype.kind == "i" and bool(np.any((array % BATCH == 0) & (array != 0)))
