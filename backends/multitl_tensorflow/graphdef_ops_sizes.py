"""What asks for shapes, and what computes with them.

Shapes are numbers while a graph is translated: the batch stands in them as a multiple of `BATCH`.
"""

from __future__ import annotations

import math

import numpy as np

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable
from multitl.translation.values import BATCH, Stored, Value
from multitl_tensorflow.graphdef_ops_shape import slice_items
from multitl_tensorflow.operations import Operation

ops = OpTable("shapes")
sizes = OpTable("sizes")  # on arrays that hold multiples of BATCH: TensorFlow's own would overflow


@ops("Shape")
def shape_of(build: Builder, node: Operation, x: Value) -> Stored:
    """As numbers, with BATCH for the batch."""
    return Stored(np.array(x.shape, "int64"))


@ops("ShapeN")
def shapes_of(build: Builder, node: Operation, *values: Value) -> list[Stored]:
    """Of several values."""
    return [shape_of(build, node, x) for x in values]


@ops("Size")
def size_of(build: Builder, node: Operation, x: Value) -> Stored:
    """How many numbers there are."""
    return Stored(np.array(math.prod(x.shape), "int64"))


@ops("Rank")
def rank_of(build: Builder, node: Operation, x: Value) -> Stored:
    """How many axes there are."""
    return Stored(np.array(x.rank, "int64"))


SIZE_FUNCTIONS = {
    "Mul": np.multiply, "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "FloorDiv": np.floor_divide,
    "Maximum": np.maximum, "Minimum": np.minimum, "Neg": np.negative, "Identity": np.asarray, "Cast": np.asarray,
    "Squeeze": np.squeeze, "Reshape": lambda a, shape: np.reshape(a, shape),
    "ExpandDims": lambda a, axis: np.expand_dims(a, int(axis)),
    "GatherV2": lambda a, indices, axis: np.take(a, indices, int(axis)),
}  # fmt: skip


def _on_arrays(function):
    return lambda node, *arrays: function(*arrays)


for _name, _function in SIZE_FUNCTIONS.items():
    sizes(_name)(_on_arrays(_function))


@sizes("Prod")
def product_of_sizes(node: Operation, a: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Along known axes."""
    return np.prod(a, axis=tuple(int(axis) for axis in np.ravel(axes)), keepdims=node.flag("keep_dims"))


@sizes("Pack")
def pack_sizes(node: Operation, *arrays: np.ndarray) -> np.ndarray:
    """Along a new axis."""
    return np.stack(arrays, node.integer("axis"))


@sizes("ConcatV2")
def join_sizes(node: Operation, *arrays: np.ndarray) -> np.ndarray:
    """Along the axis that comes last."""
    return np.concatenate(arrays[:-1], int(arrays[-1]))


@sizes("Unpack")
def unpack_sizes(node: Operation, a: np.ndarray) -> list[np.ndarray]:
    """Every element."""
    return list(a)


@sizes("StridedSlice")
def slice_sizes(node: Operation, a: np.ndarray, begin: np.ndarray, end: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """As Python slices."""
    items = slice_items(node, a.ndim, begin.tolist(), end.tolist(), steps.tolist())
    return np.asarray(a[tuple(items)])


@sizes("Slice")
def cut_sizes(node: Operation, a: np.ndarray, begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """From `begin`, `size` elements."""
    ends = [None if count == -1 else start + count for start, count in zip(begin, size, strict=True)]
    return a[tuple(slice(int(start), end) for start, end in zip(begin, ends, strict=True))]


def as_tile(shape: np.ndarray) -> np.ndarray:
    """Sizes for what is computed now and repeated for each image later: 1 in place of the batch."""
    return np.where(shape % BATCH == 0, np.where(shape == 0, 0, shape // BATCH), shape)
