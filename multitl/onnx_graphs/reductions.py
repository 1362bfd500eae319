"""Reductions along axes, wherever these lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from multitl.onnx_graphs.elementwise import multiply, subtract
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Value, positive
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, reductions")


def reduced(sheet: Sheet, kind: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """axes: Keras', from the front. keep: whether they stay, of size 1."""
    places = sheet.numbers(sorted(x.axes[axis] for axis in axes))
    tensor = sheet.node(kind, x.forms[x.axes], places, keepdims=int(keep))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    kept = replace(x, shape=shape, forms={x.axes: tensor})
    if keep:
        return kept
    left = [place for axis, place in enumerate(x.axes) if axis not in axes]
    order = sorted(left)
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return replace(x, shape=shape, forms={tuple(order.index(place) for place in left): tensor})


def _reduction(kind: str, wants_floats: bool) -> Callable[..., Value]:
    def write(sheet: Sheet, operation: Any, x: Value) -> Value:
        if getattr(operation, "initial", None) is not None:
            raise Unsupported("initial")
        return reduced(
            sheet, kind, sheet.floats(x) if wants_floats else x, positive(operation.axis, x.rank), operation.keepdims
        )

    return write


for _name, _kind in {"Mean": "ReduceMean", "Prod": "ReduceProd", "Logsumexp": "ReduceLogSumExp"}.items():
    writes(f"ops.{_name}")(_reduction(_kind, True))
for _name, _kind in {"Sum": "ReduceSum", "Max": "ReduceMax", "Min": "ReduceMin"}.items():
    writes(f"ops.{_name}")(_reduction(_kind, False))


@writes("ops.Var")
def variance(sheet: Sheet, operation: Any, x: Value) -> Value:
    """The mean of squared deviations from the mean."""
    x, axes = sheet.floats(x), positive(operation.axis, x.rank)
    centred = subtract(sheet, x, reduced(sheet, "ReduceMean", x, axes, True))
    return reduced(sheet, "ReduceMean", multiply(sheet, centred, centred), axes, operation.keepdims)


@writes("ops.Std")
def deviation(sheet: Sheet, operation: Any, x: Value) -> Value:
    """The root of the variance."""
    return sheet.alike(variance(sheet, operation, x), "Sqrt")


def _place(kind: str) -> Callable[..., Value]:
    def write(sheet: Sheet, operation: Any, x: Value) -> Value:
        if operation.axis is None:
            raise Unsupported("a place among all elements")
        axis = operation.axis % x.rank
        tensor = sheet.node(kind, x.forms[x.axes], axis=x.axes[axis], keepdims=1)
        shape = tuple(1 if one == axis else size for one, size in enumerate(x.shape))
        kept = sheet.cast(replace(x, shape=shape, dtype="int64", forms={x.axes: tensor}), "int32")
        return kept if operation.keepdims else sheet.without(kept, [axis])

    return write


writes("ops.Argmax")(_place("ArgMax"))
writes("ops.Argmin")(_place("ArgMin"))


@writes("ops.Cumsum")
def running_sum(sheet: Sheet, operation: Any, x: Value) -> Value:
    """Along one axis."""
    if operation.axis is None:
        raise Unsupported("a running sum of all elements")
    place = sheet.constant(x.axes[operation.axis % x.rank], "int64", "axis")
    return sheet.alike(sheet.floats(x), "CumSum", place)


@writes("ops.TopK")
def topk(sheet: Sheet, operation: Any, x: Value) -> list[Value]:
    """The largest along the last axis, and where they lie."""
    count, place = operation.k, x.axes[x.rank - 1]
    values, places = sheet.node_of_several("TopK", 2, x.forms[x.axes], sheet.numbers([count]), axis=place)
    found = replace(x, shape=(*x.shape[:-1], count), forms={x.axes: values})
    return [found, sheet.cast(replace(found, dtype="int64", forms={x.axes: places}), "int32")]
